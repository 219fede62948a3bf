"""Remote files: fetched once, and only what the recipe pins."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.kitchen import Kitchen, rows

from stillroom.errors import SourceError

CONTENT = b'{"question": "What is 2+2?", "reference": "4"}\n'
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site():
    """A web server with one file, which counts how often it is fetched."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            found = self.path == "/questions.jsonl"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(CONTENT) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(CONTENT)

        def do_HEAD(self) -> None:
            self.send_response(200 if self.path == "/questions.jsonl" else 404)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", fetched
    server.shutdown()
    thread.join()
    server.server_close()


def chain(url: str, sha256: str = SUM) -> str:
    return f"- source: {{file: '{url}', sha256: '{sha256}'}}"


def test_url_is_fetched_once_and_read(site, tmp_path):
    url, fetched = site
    for store in ("one", "two"):
        table = Kitchen(tmp_path / store).chain(chain(f"{url}/questions.jsonl"))
        assert [r["reference"] for r in rows(table)] == ["4"]
    assert fetched.count("/questions.jsonl") == 1


def test_other_content_than_pinned_is_refused_and_not_kept(site, tmp_path):
    url, _ = site
    with pytest.raises(SourceError, match=f"sha256 is {SUM}, but the recipe pins 0000"):
        Kitchen(tmp_path / "store").chain(chain(f"{url}/questions.jsonl", "0" * 64))
    assert not list((tmp_path / "cache").rglob("*.jsonl*"))


def test_missing_file_names_the_url(site, tmp_path):
    url, _ = site
    with pytest.raises(SourceError, match=r"nosuch\.jsonl: cannot be fetched"):
        Kitchen(tmp_path / "store").chain(chain(f"{url}/nosuch.jsonl"))


def test_url_without_a_sum_is_refused_at_load(tmp_path):
    from stillroom.errors import RecipeError

    with pytest.raises(RecipeError, match="sha256 is missing"):
        Kitchen(tmp_path / "store").chain("- source: {file: 'https://example.org/q.jsonl'}")
