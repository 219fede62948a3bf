"""The ledger: what is kept, found, summed, and said when it cannot be."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stillroom.errors import StoreError
from stillroom.models.chat import Completion, Failure, Message, Request, Sampling
from stillroom.models.ledger import Ledger, Usage, journal
from stillroom.models.ledger.journal import Record


def asked(question: str, draw: int = 0, model: str = "m") -> Request:
    return Request(model, (Message("user", question),), Sampling(), draw)


def reply(text: str = "4", finish: str = "stop", tokens: int = 3) -> Completion:
    return Completion("2+2=4", text, finish, 2, tokens)  # type: ignore[arg-type]  # a literal


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as opened:
        yield opened


def body_of(ledger: Ledger, key: bytes) -> tuple[Path, int, bytes]:
    """Return the file that holds a completion, where its body begins there, and the body."""
    for path in ledger.path.glob("*.journal"):
        content = path.read_bytes()
        with path.open("rb") as file:
            for record in journal.scan(file.fileno()):
                if isinstance(record, Record) and record.key == key:
                    start = record.end - record.body_size
                    return path, start, content[start : record.end]
    raise AssertionError("no such completion")


def index_of(ledger: Ledger) -> Path:
    return ledger.path / f"{ledger.machine}.sqlite"


def tear(ledger: Ledger, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change the body of a completion, in place."""
    path, start, body = body_of(ledger, key)
    changed = change(body)
    assert len(changed) == len(body)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(changed)


def test_put_completion_can_be_read_by_another_ledger_at_once(ledger: Ledger) -> None:
    request = asked("2+2?")
    assert ledger.put(request, reply())
    with Ledger(ledger.path) as other:
        assert other.get_many([request.key]) == {request.key: reply()}


@pytest.mark.parametrize(
    "completion",
    [
        Completion(None, "", "length", 0, 0),
        Completion("", "4", "content_filter", 1, 2),
        Completion("深い\x00\u2028", "half a pair \ud83d", "stop", 1, 2),
        Completion(None, "4", "stop", 0, 0, "qwq-awq", "call-1", counted=False),
    ],
)
def test_get_many_returns_what_was_put(ledger: Ledger, completion: Completion) -> None:
    ledger.put(asked("2+2?"), completion)
    [found] = ledger.get_many([asked("2+2?").key]).values()
    assert repr(found) == repr(completion)


def test_put_first_completion_stays(ledger: Ledger) -> None:
    request = asked("2+2?")
    ledger.put(request, reply("4"))
    assert not ledger.put(request, reply("5"))
    assert not ledger.put(request, Failure("timeout", "late"))
    assert ledger.get_many([request.key])[request.key].answer == "4"
    assert ledger.failures([request.key]) == {}


def test_failure_is_recorded_but_never_served(ledger: Ledger) -> None:
    request = asked("2+2?")
    ledger.put(request, Failure("timeout", "no reply within 600 s"))
    ledger.put(request, Failure("refused", "HTTP 400: no"))
    assert ledger.missing([request.key]) == {request.key}
    assert ledger.get_many([request.key]) == {}
    assert ledger.failures([request.key]) == {request.key: Failure("refused", "HTTP 400: no")}
    ledger.put(request, reply())
    assert ledger.missing([request.key]) == set()
    assert ledger.failures([request.key]) == {}


def test_missing_of_many_more_keys_than_one_query_holds(ledger: Ledger) -> None:
    requests = [asked(f"{i}?") for i in range(2500)]
    for request in requests[::2]:
        ledger.put(request, reply())
    keys = (request.key for request in [*requests, *requests])
    assert ledger.missing(keys) == {request.key for request in requests[1::2]}


def test_usage_sums_what_is_there_and_counts_what_was_not_counted(ledger: Ledger) -> None:
    ledger.put(asked("a"), reply(tokens=5))
    ledger.put(asked("b"), Completion(None, "4", "stop", 0, 0, counted=False))
    keys = [asked(q).key for q in "aabz"]
    assert ledger.usage(keys) == Usage(3, 4, 10, 1)
    assert ledger.usage([]) == Usage(0, 0, 0, 0)


def test_stats_by_model_finish_reason_and_failure(ledger: Ledger) -> None:
    ledger.put(asked("a"), reply(tokens=5))
    ledger.put(asked("a", model="n"), reply(finish="length", tokens=7))
    ledger.put(asked("b"), Failure("timeout", ""))
    stats = ledger.stats()
    assert stats.by_model == {"m": Usage(1, 2, 5, 0), "n": Usage(1, 2, 7, 0)}
    assert stats.total == Usage(2, 4, 12, 0)
    assert stats.finish_reasons == {"length": 1, "stop": 1}
    assert stats.failures == {"timeout": 1}
    assert stats.size_bytes > 0
    assert str(stats).startswith("2 completions, 16 tokens, 1 failures, ")


def test_stats_of_an_empty_ledger_are_zero(ledger: Ledger) -> None:
    assert ledger.stats().total == Usage(0, 0, 0, 0)


def test_forget_makes_a_request_missing_again(ledger: Ledger) -> None:
    requests = [asked(q) for q in "ab"]
    for request in requests:
        ledger.put(request, reply())
    assert ledger.forget([requests[0].key, b"\0" * 16]) == 1
    assert ledger.missing(r.key for r in requests) == {requests[0].key}
    assert list(ledger.verify()) == []


def test_forget_failures_leaves_completions(ledger: Ledger) -> None:
    ledger.put(asked("a"), reply())
    ledger.put(asked("b"), Failure("timeout", ""))
    keys = [asked(q).key for q in "ab"]
    ledger.forget_failures(keys)
    assert ledger.failures(keys) == {}
    assert ledger.missing(keys) == {keys[1]}


def test_keys_do_not_hold_what_was_never_asked(ledger: Ledger) -> None:
    ledger.put(asked("2+2?", draw=0), reply())
    others = [asked("2+2?", draw=1), asked("2+3?"), asked("2+2?", model="n")]
    assert ledger.missing(r.key for r in others) == {r.key for r in others}


@pytest.mark.parametrize(
    "change",
    [lambda b: b[:20] + bytes(len(b) - 20), lambda b: bytes(len(b)), lambda b: b[::-1]],
)
def test_torn_payload_is_named_and_never_used(
    ledger: Ledger, change: Callable[[bytes], bytes]
) -> None:
    whole, torn = asked("whole"), asked("torn")
    for request in (whole, torn):
        ledger.put(request, reply("a longer answer " * 10))
    tear(ledger, torn.key, change)
    assert [found.key for found in ledger.verify()] == [torn.key]
    assert list(ledger.get_many([whole.key])) == [whole.key]
    with pytest.raises(StoreError, match=f"{torn.key.hex()} is torn"):
        ledger.get_many([torn.key])
    ledger.forget([torn.key])
    ledger.put(torn, reply())
    assert list(ledger.verify()) == []


def test_every_changed_byte_of_a_payload_is_noticed(ledger: Ledger) -> None:
    request = asked("2+2?")
    ledger.put(request, reply("The answer is 4, because 2+2=4."))
    _, _, body = body_of(ledger, request.key)
    for i in range(len(body)):
        changed = body[:i] + bytes([body[i] ^ 0x10]) + body[i + 1 :]
        tear(ledger, request.key, lambda _, changed=changed: changed)  # type: ignore[misc]
        try:
            assert ledger.get_many([request.key])[request.key] == reply(
                "The answer is 4, because 2+2=4."
            )
        except StoreError:
            assert [torn.key for torn in ledger.verify()] == [request.key]


def test_open_newer_schema_says_so(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="here"):
        pass
    with closing(sqlite3.connect(tmp_path / "here.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"schema version is 99; expected 2 at most\. Install"):
        Ledger(tmp_path, machine="here")


def test_open_database_of_another_program_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "here.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="a database of another program"):
        Ledger(tmp_path, machine="here")


def test_index_that_is_no_database_says_that_it_can_be_deleted(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="here") as ledger:
        ledger.put(asked("a"), reply())
    (tmp_path / "here.sqlite").write_text("not a database, " * 100)
    with pytest.raises(StoreError, match="an index is made again of the journals"):
        Ledger(tmp_path, machine="here")
    (tmp_path / "here.sqlite").unlink()
    with Ledger(tmp_path, machine="here") as ledger:
        assert ledger.missing([asked("a").key]) == set()


def test_damaged_index_is_reported(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="here") as ledger:
        for i in range(300):
            ledger.put(asked(f"{i}?"), reply("x" * 200))
    path = tmp_path / "here.sqlite"
    content = bytearray(path.read_bytes())
    content[4096 * 8 :] = os.urandom(len(content) - 4096 * 8)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"here\.sqlite: damaged"):  # noqa: SIM117
        with Ledger(tmp_path, machine="here") as ledger:
            list(ledger.verify())


def test_path_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a ledger")
    with pytest.raises(StoreError, match=r"a file; expected a folder of journals"):
        Ledger(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "not a ledger"


def test_folder_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="folder cannot be made"):
        Ledger(tmp_path / "file" / "ledger")


def test_read_only_ledger_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger(path).close()
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    tmp_path.chmod(0o555)
    script = """
        import os, sys
        from stillroom.errors import StoreError
        from stillroom.models.ledger import Ledger
        if os.getuid() == 0:
            os.chdir(sys.argv[2])  # the folders above may be closed to others
            os.setuid(65534)
        try:
            Ledger(sys.argv[1])
        except StoreError as error:
            print(error)
    """
    try:
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), path.name, str(tmp_path)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        tmp_path.chmod(0o755)
        path.chmod(0o755)
    assert "expected a file and folder that you may write to" in run.stdout


def test_lock_held_too_long_says_so(ledger: Ledger) -> None:
    with (
        closing(sqlite3.connect(index_of(ledger), isolation_level=None)) as db,
        Ledger(ledger.path, busy_s=0.01) as impatient,
    ):
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked by another process for 0\.01 s"):
            impatient.put(asked("a"), reply())
        db.execute("ROLLBACK")
        assert impatient.put(asked("a"), reply())


def test_threads_share_one_ledger(ledger: Ledger) -> None:
    def work(name: str) -> None:
        for i in range(100):
            ledger.put(asked(f"{i}?"), reply(name))
            assert not ledger.missing([asked(f"{i}?").key])
            ledger.get_many([asked(f"{i}?").key])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.stats().total.completions == 100
    assert list(ledger.verify()) == []


def test_use_in_a_forked_process_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked"):
        ledger.missing([asked("a").key])


# Claims


def claim(ledger: Ledger, key: bytes) -> str:
    [verdict] = ledger.claim_many([key])
    return verdict


def test_claim_is_busy_until_put(ledger: Ledger) -> None:
    with Ledger(ledger.path) as other:
        key = asked("a").key
        assert claim(ledger, key) == "ours"
        assert claim(ledger, key) == "busy"
        assert claim(other, key) == "busy"
        ledger.put(asked("a"), reply())
        assert claim(other, key) == "bought"


@pytest.mark.parametrize("how", ["failure", "release", "close"])
def test_claim_ends(ledger: Ledger, how: str) -> None:
    key = asked("a").key
    with Ledger(ledger.path) as other:
        assert claim(other, key) == "ours"
        if how == "failure":
            other.put(asked("a"), Failure("timeout", ""))
        elif how == "release":
            other.release([key])
        else:
            other.close()
        assert claim(ledger, key) == "ours"


def test_release_leaves_claims_of_others(ledger: Ledger) -> None:
    key = asked("a").key
    with Ledger(ledger.path) as other:
        assert claim(other, key) == "ours"
        assert claim(ledger, asked("b").key) == "ours"
        ledger.release([key])
        assert claim(ledger, key) == "busy"


def test_close_leaves_nothing_beside_the_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        claim(ledger, asked("a").key)
    assert [file.suffix for file in (tmp_path / "ledger").iterdir()] == [".sqlite"]


def test_lock_of_a_buyer_killed_before_its_claim_is_swept(ledger: Ledger) -> None:
    lock = ledger.path / f"{ledger.machine}.buyer-{'ab' * 8}"
    lock.touch()
    with Ledger(ledger.path) as other:
        claim(other, asked("a").key)
        claim(ledger, asked("b").key)
        assert claim(other, asked("b").key) == claim(ledger, asked("a").key) == "busy"
        assert not lock.exists()


def test_claim_of_a_killed_process_is_free(ledger: Ledger) -> None:
    script = (
        "import os, sys; from stillroom.models.ledger import Ledger;"
        "ledger = Ledger(sys.argv[1]); print(*ledger.claim_many([bytes(16)]), flush=True);"
        "sys.stdin.read(1); os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(ledger.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ours\n"
        assert claim(ledger, bytes(16)) == "busy"
        process.communicate("x")
    assert claim(ledger, bytes(16)) == "ours"
    assert len(list(ledger.path.glob("*.buyer-*"))) == 1
