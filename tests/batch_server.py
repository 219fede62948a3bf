"""Stand-ins for two providers' batch APIs: real HTTP servers whose batches end when told."""

import email.parser
import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Outcome = dict[str, Any] | None
"""What becomes of one request: OpenAI's response or Anthropic's result; None if it expired."""


class BatchServer:
    """A provider that keeps files and batches; start it with ``with``.

    Attributes:
        outcome: What becomes of a request, by its custom id and body.
        status: Status of a batch, by how often it was looked at.
        submitted: Times that each custom id was submitted.
        batches: Batches by id, as the provider tells of them.
        slow: Ids of batches that run as long as they are named here.
        faults: Statuses to answer the next calls with, first in first out.
    """

    def __init__(self, protocol: str, *, api_key: str = "secret-key") -> None:
        self.protocol = protocol
        self.api_key = api_key
        self.outcome: Callable[[str, dict[str, Any]], Outcome] = self.answer
        self.status: Callable[[int], str] = lambda looks: "ended" if looks > 1 else "running"
        self.submitted: Counter[str] = Counter()
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.looks: Counter[str] = Counter()
        self.slow: set[str] = set()
        self.faults: list[int] = []
        self.calls: list[str] = []
        self.refusal: str | None = None
        self.drop_submissions = False  # take a batch, and break off before saying so
        self._changed = threading.Condition()
        self._closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.handle(self, b"")

            def do_POST(self) -> None:
                server.handle(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def wait_until(self, condition: Callable[[Self], bool], timeout_s: float = 30.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout_s), self.calls

    def answer(self, name: str, body: dict[str, Any]) -> Outcome:
        text = f"echo {body['messages'][-1]['content']}"
        if self.protocol == "anthropic":
            blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]
            usage = {"input_tokens": 5, "output_tokens": 7}
            message = {
                "id": "msg_1", "model": "served", "content": blocks, "stop_reason": "end_turn",
                "usage": usage,
            }  # fmt: skip
            return {"type": "succeeded", "message": message}
        usage = {"prompt_tokens": 5, "completion_tokens": 7}
        message = {"role": "assistant", "content": f"<think>hm</think>{text}"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        reply = {"id": "call-1", "model": "served", "choices": [choice], "usage": usage}
        return {"status_code": 200, "body": reply}

    def handle(self, call: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._changed:
            self.calls.append(f"{call.command} {call.path}")
            try:
                status, content = self._respond(call, body)
            finally:
                self._changed.notify_all()
        if status == 0:
            self._closing.wait(30)  # taken, and the caller never hears of it
            call.close_connection = True
            return
        call.send_response(status)
        if status == 302:
            call.send_header("Location", "http://127.0.0.1:1/stolen")
        call.send_header("Content-Length", str(len(content)))
        call.end_headers()
        call.wfile.write(content)

    def _respond(self, call: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        sent = call.headers.get("x-api-key") or call.headers.get("Authorization", "")
        if sent.removeprefix("Bearer ") != self.api_key:
            words = f"bad key {sent}"
            return 401, json.dumps({"error": {"message": words}}).encode()
        if self.faults:
            return self.faults.pop(0), b'{"error": {"message": "busy"}}'
        path = call.path.removeprefix("/v1/").split("?")[0]
        found = (self._anthropic if self.protocol == "anthropic" else self._openai)(
            call, path, body
        )
        if isinstance(found, int):
            return found, b""
        return 200, found if isinstance(found, bytes) else json.dumps(found).encode()

    def _take(self, requests: dict[str, dict[str, Any]], **fields: Any) -> Any:
        name = f"batch_{len(self.batches)}"
        self.submitted.update(list(requests))
        self.batches[name] = {"id": name, "requests": requests, "created_at": 2e9, **fields}
        if self.drop_submissions:
            return 0
        return self._shown(name)

    def _shown(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        self.looks[name] += 1
        status = "running" if name in self.slow else self.status(self.looks[name])
        counts = {"processing": len(batch["requests"])}
        if self.protocol == "anthropic":
            ended = status == "ended"
            return {
                "id": name, "processing_status": "ended" if ended else "in_progress",
                "request_counts": counts,
                "results_url": f"{self.url}/messages/batches/{name}/results" if ended else None,
            }  # fmt: skip
        if self.refusal:
            errors = {"data": [{"message": self.refusal}]}
            return {"id": name, "status": "failed", "errors": errors}
        shown = {"ended": "completed", "running": "in_progress"}.get(status, status)
        return {
            "id": name, "status": shown, "metadata": batch["metadata"], "created_at": 2e9,
            "output_file_id": f"out-{name}", "error_file_id": f"err-{name}",
        }  # fmt: skip

    def _openai(self, call: BaseHTTPRequestHandler, path: str, body: bytes) -> Any:
        if call.command == "POST" and path == "files":
            kind = call.headers["Content-Type"]
            form = email.parser.BytesParser().parsebytes(
                f"Content-Type: {kind}\r\n\r\n".encode() + body
            )
            parts = form.get_payload()
            [content] = [p.get_payload(decode=True) for p in parts if p.get_filename()]  # type: ignore[union-attr]
            self.files[f"file-{len(self.files)}"] = content  # type: ignore[assignment]
            return {"id": f"file-{len(self.files) - 1}"}
        if call.command == "POST":
            order = json.loads(body)
            lines = [json.loads(x) for x in self.files[order["input_file_id"]].split(b"\n") if x]
            assert all(line["url"] == order["endpoint"] for line in lines)
            requests = {line["custom_id"]: line["body"] for line in lines}
            return self._take(requests, metadata=order["metadata"])
        if path == "batches":
            return {"data": [self._shown(n) for n in self.batches], "has_more": False}
        if path.startswith("files/"):
            which, _, batch = path.split("/")[1].partition("-")
            return self._lines(which, self.batches[batch])
        return self._shown(path.removeprefix("batches/"))

    def _lines(self, which: str, batch: dict[str, Any]) -> bytes:
        lines = []
        for name, body in batch["requests"].items():
            outcome = self.outcome(name, body)
            fine = outcome is not None and outcome["status_code"] == 200
            if fine == (which == "out"):
                expired = {"code": "batch_expired", "message": "This request could not be executed"}
                error = None if outcome else expired
                lines.append({"custom_id": name, "response": outcome, "error": error})
        return "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()

    def _anthropic(self, call: BaseHTTPRequestHandler, path: str, body: bytes) -> Any:
        assert call.headers["anthropic-version"] == "2023-06-01"
        if call.command == "POST":
            entries = json.loads(body)["requests"]
            return self._take({entry["custom_id"]: entry["params"] for entry in entries})
        if path == "messages/batches":
            return {"data": [self._shown(n) for n in self.batches]}
        name = path.split("/")[2]
        if not path.endswith("/results"):
            return self._shown(name)
        lines = [
            {"custom_id": n, "result": self.outcome(n, b) or {"type": "expired"}}
            for n, b in self.batches[name]["requests"].items()
        ]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()
