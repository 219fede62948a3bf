"""Draws that are all the same: a server that ignores the temperature, or sends old replies again.

Covered: the first rows of a purchase, where a warning saves most. Not covered: short replies,
which agree by rights, and servers that repeat themselves only now and then.
"""

from dataclasses import replace
from hashlib import blake2b

from stillroom.models.chat import Completion, Reply, Request

_SHORT = 100  # characters; a number or a letter may well be drawn twice
_SAME = 8  # draws that equal another of their question, and none that differs
_FIRST_ROWS = 4096  # questions without a second draw, after which none is expected


class Sameness:
    """Compares draws of a question, until two differ or all are the same beyond doubt."""

    def __init__(self) -> None:
        """Begin without any."""
        self._same = 0
        self._decided = False
        self._texts: dict[bytes, bytes] = {}

    def heard(self, request: Request, reply: Reply) -> str | None:
        """Look at a reply; they come in any order.

        Returns:
            A warning for people, once; else None.
        """
        temperature = request.sampling.temperature
        if self._decided or temperature == 0 or not isinstance(reply, Completion):
            return None
        text = f"{reply.reasoning or ''}\n{reply.answer}"
        if len(text) < _SHORT:
            return None
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        question = replace(request, draw=0).key
        first = self._texts.get(question)
        if first is None:
            self._texts[question] = digest
            self._decided = len(self._texts) > _FIRST_ROWS
            return None
        self._same += first == digest
        self._decided = first != digest or self._same == _SAME
        if self._same < _SAME:
            return None
        own = "a temperature that is the server's own"
        asked = own if temperature is None else f"temperature {temperature:g}"
        return (
            f"{request.model}: draws of one question come back word for word the same, {_SAME} of "
            f"{_SAME} so far, at {asked}; expected draws that differ. The server may "
            "ignore temperature (transformers does where generation_config.json lacks "
            '"do_sample": true) or send cached replies. Correct that and forget these answers, or '
            "ask for one draw."
        )
