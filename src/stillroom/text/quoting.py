"""Put texts that nobody trusts into a prompt, so that no text can end early or pose as another."""

import re
from collections.abc import Mapping
from hashlib import blake2b

_PLACE = re.compile(r"\[\[(\w+)\]\]")


def quoted(prompt: str, texts: Mapping[str, str], **plain: str) -> str:
    """Fill the places of a prompt, ``[[name]]``, in one pass: places inside texts stay as they are.

    ``[[mark]]`` is replaced by a mark that stands in none of the texts: twelve hexadecimal digits
    of their hash, so that no text can hold its own.

    Args:
        prompt: Has a place for each text and for the mark.
        texts: What is quoted.
        plain: Further places, filled with words of our own.
    """
    state = blake2b(digest_size=6)
    for text in texts.values():
        raw = text.encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "little") + raw)
    while any(state.hexdigest() in text for text in texts.values()):
        state.update(b"again")
    filled = {**plain, **texts, "mark": state.hexdigest()}
    return _PLACE.sub(lambda place: filled[place[1]], prompt)
