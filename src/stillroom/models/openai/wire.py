"""The chat completions protocol: request bodies, completions in their normal form, errors.

Covered: six ways to send reasoning (``reasoning``, ``reasoning_content`` or ``thinking`` beside
the text, thinking blocks in the content or beside it, OpenRouter's details, think tags), several
choices, errors inside a 200, error pages of proxies. Everything here is a function of its input.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from stillroom.models.chat import Completion, FinishReason, Message, Request, Sampling
from stillroom.text.think import OPEN, split_thinking

WORDS = 500  # characters of a server's words that are kept

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
}

_NO_SCHEMA = re.compile(r"response.?format|json.?schema|structured|guided|grammar|xgrammar", re.I)
_NO_ROOM = re.compile(
    r"max_model_len=(\d{1,9})\b|is too large.{0,40}context length"
    r"|context length.{0,80}\b[1-9]\d* output tokens"
    r"|context length.{0,120}\b[1-9]\d* (?:in|tokens for) the completion"
)
_KEYLIKE = re.compile(r"\b(sk|key|hf|gsk|xai)[-_][\w*.-]{6,}")


@dataclass(frozen=True, slots=True)
class ServerError:
    """What a server sent in place of a completion.

    Attributes:
        status: HTTP status, or the one inside the body where that came with 200.
        words: The server's explanation, without keys, 500 characters at most.
        code: Its machine-readable code, or "".
        param: The request field that it names as the culprit, or "".
    """

    status: int
    words: str
    code: str = ""
    param: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which variant of the protocol a server understands.

    Attributes:
        seed: Whether it takes ``seed``.
        limit: Its name for the completion token limit.
        schema: Whether it takes ``response_format``. Replies are read the same way where not.
    """

    seed: bool = True
    limit: str = "max_tokens"
    schema: bool = True

    def payload(
        self, requests: Sequence[Request], served_name: str, *, room: int | None = None
    ) -> bytes:
        """Write the JSON body that asks for draws of one question in one call.

        Args:
            requests: The draws.
            served_name: What the servers call the model.
            room: Where the context has no room for ``max_tokens``: the limit to ask for instead,
                or 0 for what is left.
        """
        first = requests[0]
        sampling = first.sampling
        if room is not None:
            sampling = replace(sampling, max_tokens=room or None)
        begin = self._begin(served_name, first.messages, sampling, first.schema, len(requests))
        if not self.seed:
            return begin + b"}"
        # From the key: draws differ, and so do questions of the same draw.
        return b'%b, "seed": %d}' % (begin, int.from_bytes(first.key[:4]) >> 1)

    @lru_cache(16)  # noqa: B019 - few dialects live, and draws of a question follow one another
    def _begin(
        self,
        served_name: str,
        messages: tuple[Message, ...],
        sampling: Sampling,
        schema: str | None,
        n: int,
    ) -> bytes:
        """Write what the draws of one question share: the body but for its end."""
        fields = {
            "model": served_name,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.limit: sampling.max_tokens,
            "n": n if n > 1 else None,
            "response_format": self._response_format(schema),
        }
        return json.dumps({k: v for k, v in fields.items() if v is not None})[:-1].encode()

    def other(self, error: ServerError) -> "Dialect | None":
        """Return the dialect to try after this error; None if the error is about something else."""
        if error.status not in (400, 422):
            return None
        if self.limit == "max_tokens" and "max_completion_tokens" in error.words:
            return replace(self, limit="max_completion_tokens")
        if self.seed and (error.param == "seed" or re.search(r"\bseed\b", error.words)):
            return replace(self, seed=False)
        if self.schema and (_NO_SCHEMA.search(error.param) or _NO_SCHEMA.search(error.words)):
            return replace(self, schema=False)
        return None

    def _response_format(self, schema: str | None) -> dict[str, Any] | None:
        if schema is None or not self.schema:
            return None
        wanted = {"name": "reply", "strict": True, "schema": json.loads(schema)}
        return {"type": "json_schema", "json_schema": wanted}


def room_left(error: ServerError) -> int | None:
    """Return the limit to ask for where an error says that the context has no room for it.

    The local engine gives what there is room for, and so do servers that are asked for it. vLLM
    0.32 refuses a limit above its context, and fits a smaller one to the prompt itself; other
    versions, and SGLang, refuse prompt and limit that are too much together, and without a limit
    give what is left.

    Returns:
        Tokens; 0 for no limit; None where the error is about something else, such as a prompt that
        alone is too long.

    >>> room_left(ServerError(400, "max_tokens=9000 cannot be greater than max_model_len=1024."))
    1024
    """
    found = _NO_ROOM.search(error.words) if error.status == 400 else None
    return None if found is None else int(found[1] or 0)


class BadReplyError(Exception):
    """A body that came with 200 holds no completion."""


Choices = list[Completion | BadReplyError]


def read_reply(
    status: int, body: bytes, *, key: str | None, starts_in_thinking: bool
) -> Choices | ServerError:
    """Read a response: its choices in their order, or the error that it holds.

    Raises:
        BadReplyError: If it holds neither.
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError) as problem:  # UnicodeDecodeError is one
        if status == 200:
            raise BadReplyError(clean(f"not JSON ({problem}): {body[:200]!r}", key)) from None
        reply = None
    if (error := _error_in(status, reply, body, key)) is not None:
        return error
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise BadReplyError(clean(f"no choices: {body[:200]!r}", key))
    read: Choices = []
    for choice in choices:
        try:
            read.append(_completion(choice, reply, starts_in_thinking=starts_in_thinking))
        except BadReplyError as problem:
            read.append(BadReplyError(clean(str(problem), key)))
    return _share_usage(read, reply.get("usage")) if len(read) > 1 else read


def _completion(choice: Any, reply: dict[str, Any], *, starts_in_thinking: bool) -> Completion:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise BadReplyError(f"no message: {str(choice)[:200]}")
    finish = choice.get("finish_reason")
    finish_reason = _FINISH_REASONS.get(finish.lower()) if isinstance(finish, str) else None
    if finish_reason is None:
        raise BadReplyError(f"finish_reason is {finish!r}")

    content, reasoning = _texts(message.get("content"))
    reasoning = reasoning or _reasoning_beside(message)
    if content is None and isinstance(message.get("refusal"), str):
        content = message["refusal"]
    if content is None and not reasoning and finish_reason == "stop":
        raise BadReplyError("content is null")
    content = content or ""
    if reasoning and reasoning.strip():
        reasoning = reasoning.strip()
        # Some gateways send the thinking as a field and leave it in the text as well.
        twice = content.lstrip().startswith(OPEN)
        answer = split_thinking(content).answer if twice else content.strip()
    else:
        reasoning, answer = split_thinking(content, opened=starts_in_thinking)

    prompt_tokens, completion_tokens, counted = _usage(reply.get("usage"))
    return Completion(
        reasoning=None if reasoning is None else _well_formed(reasoning),
        answer=_well_formed(answer),
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        served_name=reply["model"] if isinstance(reply.get("model"), str) else None,
        provider_id=reply["id"] if isinstance(reply.get("id"), str) else None,
        counted=counted,
    )


def _texts(content: Any) -> tuple[str | None, str | None]:
    """Return the visible text and the thinking of a message's content, text or list of parts."""
    if isinstance(content, str) or content is None:
        return content, None
    if not isinstance(content, list):
        raise BadReplyError(f"content is {type(content).__name__}")
    visible, thinking = [], []
    for part in content:
        if not isinstance(part, dict):
            raise BadReplyError(f"content part is {type(part).__name__}")
        if isinstance(part.get("text"), str):
            visible.append(part["text"])
        elif "thinking" in part:  # Mistral sends the thinking as a list of parts once more
            inner, _ = _texts(part["thinking"])
            thinking.append(inner or "")
    return "".join(visible), "".join(thinking) or None


def _reasoning_beside(message: dict[str, Any]) -> str | None:
    """Return the thinking that stands beside the content, under any of its names."""
    for name in ("reasoning", "reasoning_content", "thinking"):
        if isinstance(message.get(name), str) and message[name]:
            return str(message[name])
    for name, field in (("thinking_blocks", "thinking"), ("reasoning_details", "text")):
        blocks = message.get(name)
        if isinstance(blocks, list):
            texts = [block.get(field) for block in blocks if isinstance(block, dict)]
            if found := "".join(text for text in texts if isinstance(text, str)):
                return found
    return None


def _usage(usage: Any) -> tuple[int, int, bool]:
    """Return prompt tokens, completion tokens, and whether the server counted them."""
    counts: dict[str, Any] = usage if isinstance(usage, dict) else {}
    prompt: Any = counts.get("prompt_tokens")
    completion: Any = counts.get("completion_tokens")
    if all(type(count) is int and count >= 0 for count in (prompt, completion)):
        return prompt, completion, True
    return 0, 0, False


def _share_usage(choices: Choices, usage: Any) -> Choices:
    """Share the counts of one call out to its choices, so that their sum is what was counted.

    A server counts the prompt once and the completion tokens of all choices together: the former
    is shared evenly, the latter by length of text.
    """
    prompt, completion, counted = _usage(usage)
    if not counted:
        return choices
    good = [choice for choice in choices if isinstance(choice, Completion)]
    prompts = _parts(prompt, [1] * len(good))
    lengths = [len(choice.reasoning or "") + len(choice.answer) for choice in good]
    completions = _parts(completion, lengths)
    shared = iter(
        replace(choice, prompt_tokens=p, completion_tokens=c)
        for choice, p, c in zip(good, prompts, completions, strict=True)
    )
    return [next(shared) if isinstance(choice, Completion) else choice for choice in choices]


def _parts(whole: int, weights: Sequence[int]) -> list[int]:
    """Split a whole number in proportion to weights, without losing any of it.

    >>> _parts(10, [1, 1, 1])
    [3, 3, 4]
    """
    weights = weights if sum(weights) else [1] * len(weights)
    sums = [0]
    for weight in weights:
        sums.append(sums[-1] + weight)
    ends = [whole * s // (sums[-1] or 1) for s in sums]
    return [end - start for start, end in pairwise(ends)]


def _well_formed(text: str) -> str:
    """Replace half surrogate pairs, which no Parquet file can hold, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _error_in(status: int, content: Any, body: bytes, key: str | None) -> ServerError | None:
    fields = content if isinstance(content, dict) else {}
    if status == 200 and ("choices" in fields or not fields.get("error")):
        return None
    error = fields.get("error") or fields
    if isinstance(error, dict):
        words = error.get("message") or error.get("detail") or ("" if not error else str(error))
        code, param = error.get("code"), error.get("param")
    else:
        words, code, param = error, None, None
    if content is None:  # an error page of a proxy
        page = body[: 2**16].decode("utf-8", "replace")
        words = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", page)
    if status == 200:  # OpenRouter sends upstream errors this way
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return ServerError(status, clean(str(words), key), str(code or ""), str(param or ""))


def error_words(status: int, body: bytes, key: str | None) -> str:
    """Return what a server says in an error, without keys."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    error = _error_in(status, content, body, key)
    return error.words if error else ""


def clean(words: str, key: str | None) -> str:
    """Cut keys, control characters and length out of a server's words."""
    if key:
        words = words.replace(key, "[key]")
    words = _KEYLIKE.sub("[key]", words)
    return "".join(c for c in " ".join(words.split()) if c.isprintable())[:WORDS]
