"""Ledgers of several machines, damaged and compacted journals, and completions that move."""

import json
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from stillroom.errors import StoreError
from stillroom.models.chat import Completion, Failure, Message, Request, Sampling
from stillroom.models.ledger import Ledger, machine_name
from stillroom.models.ledger import folder as ledger_folder
from stillroom.models.ledger.journal import Gap, scan


def asked(question: object, draw: int = 0) -> Request:
    return Request("m", (Message("user", str(question)),), Sampling(), draw)


def reply(text: str = "4", tokens: int = 3) -> Completion:
    return Completion("2+2=4", text, "stop", 2, tokens)


def fill(ledger: Ledger, start: int, end: int, text: str = "4") -> list[bytes]:
    ledger.put_many([(asked(i), reply(text)) for i in range(start, end)])
    return [asked(i).key for i in range(start, end)]


def trace(seed: int) -> str:
    """Write a trace of 4 KB in the words that all traces share."""
    draw = random.Random(seed)
    phrases = [
        f"Wait, let me check number {i}: " + "the sum is not even, so " * 2 for i in range(60)
    ]
    return "\n".join(f"{draw.choice(phrases)} {draw.randrange(10**9)}" for _ in range(50))


def journals(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.journal"))


@pytest.fixture(autouse=True)
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_folder, "FOLLOW_EVERY_S", 0.0)


# Machines


def test_machines_read_what_others_wrote_and_write_their_own(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a, Ledger(tmp_path, machine="b") as b:
        from_a = fill(a, 0, 5, "a")
        from_b = fill(b, 5, 9, "b")
        for ledger in (a, b):
            assert ledger.missing([*from_a, *from_b]) == set()
            assert [c.answer for c in ledger.get_many(from_a + from_b).values()].count("b") == 4
            assert ledger.stats().total.completions == 9
        assert not b.put(asked(0), reply("late"))
    assert journals(tmp_path) == ["a.1.journal", "b.1.journal"]


def test_bought_twice_the_earlier_counts_on_every_machine(tmp_path: Path) -> None:
    """As when two machines bought before they could see each other's journal."""
    with Ledger(tmp_path / "1", machine="a") as a:
        a.put(asked("x"), reply("first"))
    with Ledger(tmp_path / "2", machine="b") as b:
        b.put(asked("x"), reply("second"))
    (tmp_path / "2" / "a.1.journal").write_bytes((tmp_path / "1" / "a.1.journal").read_bytes())
    (tmp_path / "1" / "b.1.journal").write_bytes((tmp_path / "2" / "b.1.journal").read_bytes())
    for folder, machine in [("1", "a"), ("2", "b"), ("1", "c"), ("2", "d")]:
        with Ledger(tmp_path / folder, machine=machine) as ledger:
            assert ledger.get_many([asked("x").key])[asked("x").key].answer == "first"


def test_what_is_forgotten_is_forgotten_everywhere_until_bought_again(tmp_path: Path) -> None:
    key = asked(0).key
    with Ledger(tmp_path, machine="a") as a, Ledger(tmp_path, machine="b") as b:
        fill(a, 0, 2)
        assert b.forget([key]) == 1
        assert a.missing([key]) == {key}
        b.put(asked(0), reply("again"))
        assert a.get_many([key])[key].answer == "again"
    with Ledger(tmp_path, machine="c") as c:
        assert c.get_many([key])[key].answer == "again"
        assert c.stats().total.completions == 2


def test_half_written_record_of_another_machine_is_waited_for(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a:
        keys = fill(a, 0, 3)
    whole = (tmp_path / "a.1.journal").read_bytes()
    (tmp_path / "a.1.journal").write_bytes(whole[:-5])
    with Ledger(tmp_path, machine="b") as b:
        assert b.missing(keys) == {keys[2]}
        (tmp_path / "a.1.journal").write_bytes(whole)
        assert b.missing(keys) == set()


def test_lost_index_is_made_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a:
        keys = fill(a, 0, 5)
        a.put(asked("bad"), Failure("refused", "no"))
        a.put(asked("worse"), Failure("timeout", "late"))
        a.forget_failures([asked("worse").key])
        a.forget(keys[:1])
    (tmp_path / "a.sqlite").unlink()
    with Ledger(tmp_path, machine="a") as a:
        assert a.missing(keys) == {keys[0]}
        failed = [asked("bad").key, asked("worse").key]
        assert a.failures(failed) == {failed[0]: Failure("refused", "no")}
        assert list(a.verify()) == []


def test_machine_name_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_name() == machine_name()
    monkeypatch.setenv("STILLROOM_MACHINE", "node-17")
    assert machine_name() == "node-17"
    monkeypatch.setenv("STILLROOM_MACHINE", "../x")
    with pytest.raises(StoreError, match=r"STILLROOM_MACHINE is '\.\./x'; expected up to 64"):
        machine_name()


# Damage


@pytest.mark.parametrize("seed", range(12))
def test_journal_cut_at_any_byte_loses_only_what_was_cut(tmp_path: Path, seed: int) -> None:
    with Ledger(tmp_path, machine="a") as a:
        ends = []
        for i in range(6):
            a.put(asked(i), reply("x" * i))
            ends.append((tmp_path / "a.1.journal").stat().st_size)
    cut = random.Random(seed).randrange(ends[-1])
    os.truncate(tmp_path / "a.1.journal", cut)
    if seed % 2:
        (tmp_path / "a.sqlite").unlink()
    else:  # the disk had been waited for only before the cut
        with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db, db:
            db.execute("UPDATE journal SET synced = 0")
    with Ledger(tmp_path, machine="a") as a:
        lost = {asked(i).key for i in range(6) if ends[i] > cut}
        assert a.missing(asked(i).key for i in range(6)) == lost
        for i in range(6):
            a.put(asked(i), reply("x" * i))
        assert list(a.verify()) == []
    with Ledger(tmp_path, machine="b") as b:
        assert b.missing(asked(i).key for i in range(6)) == set()


def test_damage_in_the_middle_is_named_and_stepped_over(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a:
        keys = fill(a, 0, 5)
    path = tmp_path / "a.1.journal"
    with path.open("rb") as file:
        second = list(scan(file.fileno()))[1]
    content = bytearray(path.read_bytes())
    content[second.start + 20] ^= 0xFF
    path.write_bytes(content)
    with path.open("rb") as file:
        assert [r for r in scan(file.fileno()) if isinstance(r, Gap)] == [
            Gap(second.start, second.start + second.size)  # type: ignore[union-attr]
        ]
    with Ledger(tmp_path, machine="a") as a:
        assert [torn.problem.split(":")[0] for torn in a.verify()] == [
            "a.1.journal",
            "its record is gone",
        ]
    with Ledger(tmp_path, machine="b") as b:
        assert b.missing(keys) == {keys[1]}


def test_kill_between_journal_and_index_keeps_the_completion(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a:
        fill(a, 0, 3)
        before = (tmp_path / "a.sqlite").read_bytes(), (tmp_path / "a.1.journal").stat().st_size
    index = (tmp_path / "a.sqlite").read_bytes()
    with Ledger(tmp_path, machine="a") as a:
        keys = fill(a, 3, 6)
    assert (tmp_path / "a.1.journal").stat().st_size > before[1]
    (tmp_path / "a.sqlite").write_bytes(index)  # as if the commit had never been
    with Ledger(tmp_path, machine="a") as a:
        assert a.missing(keys) == set()
        fill(a, 6, 8)
        assert list(a.verify()) == []


# Size


def test_dictionary_is_learnt_and_serves_other_processes_and_machines(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a:
        for i in range(700):
            a.put(asked(i), reply(trace(i)))
        with (tmp_path / "a.1.journal").open("rb") as file:
            sizes = {r.key: r.body_size for r in scan(file.fileno()) if r.kind == 1}  # type: ignore[union-attr]
    early, late = ([sizes[asked(i).key] for i in part] for part in (range(100), range(600, 700)))
    assert sum(late) < 0.8 * sum(early)
    with Ledger(tmp_path, machine="a") as again:
        again.put(asked(1000), reply(trace(1000)))
    with Ledger(tmp_path, machine="b") as b:
        found = b.get_many(asked(i).key for i in [*range(700), 1000])
        assert all(found[asked(i).key].answer == trace(i) for i in [*range(700), 1000])
        assert list(b.verify()) == []
        with (tmp_path / "a.1.journal").open("rb") as file:
            last = list(scan(file.fileno()))[-1]
    assert last.body_size < 0.8 * sum(early) / 100  # type: ignore[union-attr]


def test_compact_drops_what_was_forgotten_and_shrinks(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a:
        for i in range(300):
            a.put(asked(i), reply(trace(i)))
        a.put(asked("bad"), Failure("refused", "no"))
        a.forget(asked(i).key for i in range(50))
        done = a.compact()
        assert (done.completions, done.torn) == (250, 0)
        assert done.after < 0.7 * done.before
        for _ in range(2):
            assert a.missing(asked(i).key for i in range(300)) == {asked(i).key for i in range(50)}
            assert a.get_many([asked(60).key])[asked(60).key].answer == trace(60)
            assert a.failures([asked("bad").key]) == {asked("bad").key: Failure("refused", "no")}
            assert list(a.verify()) == []
            a.compact()
        a.put(asked(0), reply("again"))
    (tmp_path / "a.sqlite").unlink()
    with Ledger(tmp_path, machine="a") as a:
        assert a.stats().total.completions == 251
        assert list(a.verify()) == []


def test_compact_under_other_readers_and_writers(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path, machine="a") as a,
        Ledger(tmp_path, machine="a") as sister,
        Ledger(tmp_path, machine="b") as b,
    ):
        keys = fill(a, 0, 50)
        keys += fill(b, 50, 60)
        assert len(sister.get_many(keys)) == 60
        assert len(b.get_many(keys)) == 60
        a.compact()
        keys += fill(sister, 60, 70)
        for ledger in (a, sister, b):
            assert len(ledger.get_many(keys)) == 70
            assert list(ledger.verify()) == []


def test_compact_keeps_what_another_machine_forgot_forgotten(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a, Ledger(tmp_path, machine="b") as b:
        keys = fill(a, 0, 3)
        b.forget(keys[:1])
        b.compact()
        (tmp_path / "a.sqlite").exists()
        assert a.missing(keys) == {keys[0]}
    with Ledger(tmp_path, machine="c") as c:
        assert c.missing(keys) == {keys[0]}


def test_compact_drops_what_is_torn_so_that_it_is_bought_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, machine="a") as a:
        keys = fill(a, 0, 5, "a longer answer " * 10)
    path = tmp_path / "a.1.journal"
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(content)
    with Ledger(tmp_path, machine="a") as a:
        assert a.compact().torn == 1
        assert a.missing(keys) == {keys[4]}
        assert list(a.verify()) == []


# Moving


def test_export_is_read_in_elsewhere_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "1", machine="a") as a:
        for i in range(150):
            a.put(asked(i), reply(trace(i)))
        a.forget([asked(0).key])
        assert a.export(tmp_path / "out.journal") == 149
        with pytest.raises(StoreError, match="is there already"):
            a.export(tmp_path / "out.journal")
    with Ledger(tmp_path / "2", machine="b") as b:
        fill(b, 100, 110, "mine")
        assert b.take_in(tmp_path / "out.journal") == (149, 139)
        assert b.take_in(tmp_path / "1") == (149, 0)
        found = b.get_many(asked(i).key for i in range(150))
        assert found[asked(1).key].answer == trace(1)
        assert found[asked(100).key].answer == "mine"
        assert b.stats().by_model["m"].completions == 149


def test_ledger_of_the_first_form_is_read_in(tmp_path: Path) -> None:
    old = tmp_path / "ledger.sqlite"
    pack = zstandard.ZstdCompressor(write_checksum=True).compress
    body = json.dumps(
        {"reasoning": "2+2=4", "answer": "4", "finish_reason": "stop",
         "prompt_tokens": 2, "completion_tokens": 3, "counted": True}
    ).encode()  # fmt: skip
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("CREATE TABLE model (id INTEGER PRIMARY KEY, name TEXT)")
        db.execute("CREATE TABLE payload (id INTEGER PRIMARY KEY, body BLOB)")
        db.execute("CREATE TABLE completion (key BLOB, payload INTEGER, model INTEGER)")
        db.execute("INSERT INTO model VALUES (1, 'm')")
        db.execute("INSERT INTO payload VALUES (1, ?)", (pack(body),))
        db.execute("INSERT INTO completion VALUES (?, 1, 1)", (asked("x").key,))
    with Ledger(tmp_path / "ledger") as ledger:
        assert ledger.take_in(old) == (1, 1)
        assert ledger.get_many([asked("x").key]) == {asked("x").key: reply()}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "holds no journals"),
        (lambda path: path.write_text("hello"), "bytes 0 to 5 are no record"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(200)), "cannot be read as a"),
    ],
)
def test_take_in_says_what_is_wrong(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "other"
    make(path)  # type: ignore[operator]
    with Ledger(tmp_path / "ledger") as ledger, pytest.raises(StoreError, match=words):
        ledger.take_in(path)
