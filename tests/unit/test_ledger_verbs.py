"""`stillroom ledger`: what its verbs do and say."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from stillroom.cli import cli
from stillroom.errors import StoreError
from stillroom.models.chat import Completion, Failure, Message, Request, Sampling
from stillroom.models.ledger import Ledger


def asked(question: object) -> Request:
    return Request("m", (Message("user", str(question)),), Sampling())


def say(*arguments: object, status: int = 0) -> str:
    done = CliRunner().invoke(cli, ["ledger", *map(str, arguments)])
    if isinstance(done.exception, StoreError):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.output


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    with Ledger(path / "ledger", machine="here") as ledger:
        for i in range(3):
            ledger.put(asked(i), Completion("hm", "4", "stop", 2, 3))
        ledger.put(asked("bad"), Failure("refused", "no"))
    return path


def test_stats_count_by_model_reason_and_journal(store: Path) -> None:
    said = say("stats", "--store", store)
    assert "3 completions, 15 tokens, 1 failures" in said
    assert "m: 3 completions, 6 prompt and 9 completion tokens" in said
    assert "finished by: 3 stop" in said
    assert "failed with: 1 refused" in said
    assert "here.1.journal" in said


def test_stats_add_the_students_of_studies_up(store: Path) -> None:
    with Ledger(store / "ledger", machine="here") as ledger:
        for name in ("student/a", "student/b"):
            one = Request(name, (Message("user", "?"),), Sampling(), 0)
            ledger.put(one, Completion(None, "4", "stop", 5, 7))
    said = say("stats", "--store", store)
    assert "2 students: 2 completions, 10 prompt and 14 completion tokens" in said
    assert "m: 3 completions" in said
    assert "student/" not in said


def test_verify_names_what_is_torn_and_forgets_it_when_told(store: Path) -> None:
    assert "every byte as written" in say("verify", "--store", store)
    path = store / "ledger" / "here.1.journal"
    content = path.read_bytes()
    body = content.rindex(b"\x28\xb5\x2f\xfd")  # where the last zstd frame begins
    path.write_bytes(content[: body + 12] + b"\xff" + content[body + 13 :])
    key = asked(2).key
    said = say("verify", "--store", store, status=1)
    assert said.startswith(f"torn: {key.hex()} ")
    assert said.endswith("1 torn.\n")
    assert "1 forgotten" in say("verify", "--forget", "--store", store)
    assert "every byte as written" in say("verify", "--store", store)
    with Ledger(store / "ledger") as ledger:
        assert ledger.missing(asked(i).key for i in range(3)) == {key}


def test_forget_compact_export_import_and_merge(store: Path, tmp_path: Path) -> None:
    assert say("forget", asked(0).key.hex(), "--store", store) == "1 forgotten.\n"
    assert "expected 32 hexadecimal digits" in say("forget", "xyz", "--store", store, status=2)
    assert " completions, 0.0 MB before" in say("compact", "--store", store)
    out = tmp_path / "out.journal"
    assert say("export", out, "--store", store).startswith(f"2 completions in {out}")
    other = tmp_path / "other"
    assert "2 completions read, 2 of them new" in say("import", out, "--store", other)
    assert "2 completions read, 0 of them new" in say("merge", store, "--store", other)


def test_store_without_ledger_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such ledger; expected one in a store"):
        say("stats", "--store", tmp_path)
    assert list(tmp_path.iterdir()) == []
