"""The two batch protocols: OpenAI's files and batches, and Anthropic's message batches.

A protocol submits requests under ids of ours, tells how a batch stands, and reads its results.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from stillroom.models.batch.http import Http
from stillroom.models.chat import Completion, Failure, FinishReason, Reply, Request
from stillroom.models.openai.wire import BadReplyError, ServerError, read_reply

State = Literal["running", "done", "failed"]
_WORDS = 500

_FINISH: Mapping[str, FinishReason] = {
    "length": "length", "max_tokens": "length", "content_filter": "content_filter",
    "refusal": "content_filter",
}  # fmt: skip
_TOO_LONG = ("context_length", "prompt is too long", "maximum context")


@dataclass(frozen=True)
class Standing:
    """How a batch stands.

    Attributes:
        state: ``running``; ``done``, with results to read, though perhaps not for all requests;
            ``failed``, when the provider took none of them.
        words: The provider's explanation of a failure.
        results: Where results are read, for the protocol itself.
    """

    state: State
    words: str = ""
    results: tuple[str, ...] = ()


class BatchProtocol(Protocol):
    """How one provider takes batches."""

    def submit(self, nonce: str, requests: Mapping[str, Request]) -> str:
        """Submit requests by their ids, marked with a nonce; return the batch's id."""
        ...

    def find(self, nonce: str, ids: Sequence[str], since_s: float) -> str | None:
        """Look for a batch that was submitted with this nonce, or for these ids since then."""
        ...

    def standing(self, batch: str) -> Standing:
        """Ask how a batch stands."""
        ...

    def results(self, standing: Standing) -> Iterator[tuple[str, Reply | None]]:
        """Yield id and reply; None for a request that was not tried, as when a batch expired."""
        ...


@dataclass(frozen=True)
class OpenAIBatches:
    """Files and batches, as in the OpenAI API reference, "Batch"."""

    http: Http
    served_name: str

    def submit(self, nonce: str, requests: Mapping[str, Request]) -> str:
        """Upload the requests as a file, then submit it."""
        lines = [
            json.dumps(
                {
                    "custom_id": name, "method": "POST", "url": "/v1/chat/completions",
                    "body": self._body(request),
                }
            )
            for name, request in requests.items()
        ]  # fmt: skip
        content = ("\n".join(lines) + "\n").encode("utf-8", "replace")
        file = self.http.upload("files", {"purpose": "batch"}, f"{nonce}.jsonl", content)
        batch = self.http.order(
            "batches",
            {
                "input_file_id": file["id"], "endpoint": "/v1/chat/completions",
                "completion_window": "24h", "metadata": {"stillroom": nonce},
            },
        )  # fmt: skip
        return str(batch["id"])

    def _body(self, request: Request) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self.served_name,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "max_completion_tokens": request.sampling.max_tokens,
            # From the key: draws differ, and so do questions of the same draw.
            "seed": int.from_bytes(request.key[:4]) >> 1,
        }
        if request.schema is not None:
            schema = {"name": "reply", "schema": json.loads(request.schema), "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {key: value for key, value in fields.items() if value is not None}

    def find(self, nonce: str, ids: Sequence[str], since_s: float) -> str | None:
        """Find the batch whose metadata has the nonce."""
        page = self.http.get("batches?limit=100")
        while True:
            for batch in page["data"]:
                if (batch.get("metadata") or {}).get("stillroom") == nonce:
                    return str(batch["id"])
            if not page.get("has_more") or not page["data"]:
                return None
            if page["data"][-1].get("created_at", since_s) < since_s:
                return None
            page = self.http.get(f"batches?limit=100&after={page['data'][-1]['id']}")

    def standing(self, batch: str) -> Standing:
        """Read the batch's status."""
        found = self.http.get(f"batches/{batch}")
        status = found["status"]
        if status == "failed":
            errors = (found.get("errors") or {}).get("data") or []
            return Standing("failed", "; ".join(str(e.get("message")) for e in errors)[:_WORDS])
        if status not in ("completed", "expired", "cancelled"):
            return Standing("running")
        files = (found.get("output_file_id"), found.get("error_file_id"))
        return Standing("done", results=tuple(f for f in files if f))

    def results(self, standing: Standing) -> Iterator[tuple[str, Reply | None]]:
        """Read the output file and the error file."""
        for file in standing.results:
            for line in self.http.lines(f"files/{file}/content"):
                yield str(line["custom_id"]), self._reply(line)

    def _reply(self, line: dict[str, Any]) -> Reply | None:
        error = line.get("error")
        if error:
            if error.get("code") == "batch_expired":
                return None
            return Failure(_reason(str(error.get("code")), 0), str(error.get("message"))[:_WORDS])
        response = line.get("response") or {}
        body = json.dumps(response.get("body")).encode()
        try:
            read = read_reply(
                response.get("status_code") or 200, body, key=None, starts_in_thinking=False
            )
        except BadReplyError as problem:
            return Failure("bad_reply", str(problem))
        if isinstance(read, ServerError):
            reason = _reason(f"{read.code} {read.words}", read.status)
            return Failure(reason, f"HTTP {read.status}: {read.words}"[:_WORDS])
        return Failure("bad_reply", str(read[0])) if isinstance(read[0], BadReplyError) else read[0]


@dataclass(frozen=True)
class AnthropicBatches:
    """Message batches, as in the Anthropic API reference, "Message Batches"."""

    http: Http
    served_name: str

    def submit(self, nonce: str, requests: Mapping[str, Request]) -> str:
        """Submit the requests in one call."""
        entries = [
            {"custom_id": name, "params": self._body(request)} for name, request in requests.items()
        ]
        return str(self.http.order("messages/batches", {"requests": entries})["id"])

    def _body(self, request: Request) -> dict[str, Any]:
        system = [m.content for m in request.messages if m.role == "system"]
        fields = {
            "model": self.served_name,
            "max_tokens": request.sampling.max_tokens,
            "system": "\n\n".join(system) or None,
            "messages": [
                {"role": m.role, "content": m.content}
                for m in request.messages
                if m.role != "system"
            ],
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
        }
        return {key: value for key, value in fields.items() if value is not None}

    def find(self, nonce: str, ids: Sequence[str], since_s: float) -> str | None:
        """Find a batch that has ended and has results for these ids.

        Batches carry no mark of ours, and one that runs does not say what is in it, so those of
        the same size are waited for.
        """
        for batch in self.http.get("messages/batches?limit=100")["data"]:
            if sum((batch.get("request_counts") or {}).values()) != len(ids):
                continue
            while (standing := self.standing(batch["id"])).state == "running":
                time.sleep(self.http.pause_s)
            if {name for name, _ in self.results(standing)} == set(ids):
                return str(batch["id"])
        return None

    def standing(self, batch: str) -> Standing:
        """Read the batch's status."""
        found = self.http.get(f"messages/batches/{batch}")
        if found["processing_status"] != "ended":
            return Standing("running")
        return Standing("done", results=(found["results_url"],) if found["results_url"] else ())

    def results(self, standing: Standing) -> Iterator[tuple[str, Reply | None]]:
        """Read the results."""
        for url in standing.results:
            for line in self.http.lines(url):
                yield str(line["custom_id"]), self._reply(line["result"])

    def _reply(self, result: dict[str, Any]) -> Reply | None:
        if result["type"] in ("expired", "canceled"):
            return None
        if result["type"] == "errored":
            told = result.get("error") or {}
            told = told.get("error") or told
            words = str(told.get("message"))[:_WORDS]
            # Only an invalid request is the request's own fault.
            status = 400 if told.get("type") == "invalid_request_error" else 500
            return Failure(_reason(words, status), words)
        try:
            message = result["message"]
            blocks = message["content"]
            thinking = "".join(b["thinking"] for b in blocks if b["type"] == "thinking")
            text = "".join(b["text"] for b in blocks if b["type"] == "text")
            usage = message.get("usage") or {}
            return _completion(
                thinking or None, text, message.get("stop_reason"),
                usage.get("input_tokens"), usage.get("output_tokens"), message,
            )  # fmt: skip
        except (KeyError, TypeError):
            return Failure("bad_reply", "a result without content")


def _completion(
    reasoning: str | None,
    answer: str,
    finish: str | None,
    prompt_tokens: int | None,
    completion_tokens: int | None,
    body: dict[str, Any],
) -> Completion:
    counted = isinstance(prompt_tokens, int) and isinstance(completion_tokens, int)
    return Completion(
        reasoning=reasoning,
        answer=answer,
        finish_reason=_FINISH.get(finish or "", "stop"),
        prompt_tokens=prompt_tokens or 0 if counted else 0,
        completion_tokens=completion_tokens or 0 if counted else 0,
        served_name=body.get("model"),
        provider_id=body.get("id"),
        counted=counted,
    )


def _reason(words: str, status: int) -> str:
    if any(sign in words for sign in _TOO_LONG):
        return "too_long"
    return "refused" if status in (400, 413, 422) else "server_error"
