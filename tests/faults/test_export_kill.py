"""A kill, a full disk and a second process in the middle of an export.

The processes are forked from one that has only imported Stillroom: Polars starts its threads when
it first works, and threads do not survive a fork.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.tables import answer_table, question_table, store_in, verify

KITCHEN = '''
import os, resource, signal, sys, traceback
from pathlib import Path

from stillroom.errors import StoreError
from stillroom.steps.export.export import Export, write_dataset
from stillroom.store.artifact import Artifact
from stillroom.store.table import Table

root = Path(sys.argv[1])
old, out = root / "old", root / "out"
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


def table():
    questions, answers, verdicts = (
        Artifact.load(next((root / "store/artifacts" / step).iterdir()))
        for step in ("source", "answer", "verify")
    )
    return Table(answers, (verdicts,), parent=Table(questions))


def export(recipe, folder=out):
    tables = {"math": table()}
    return write_dataset(
        folder, name="sums", recipe_text=recipe, tables=tables, story=[], export=Export(file_mb=1)
    )


def child(work):
    """Do work in a process of its own; return how it ended."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid):
    return os.waitpid(pid, 0)[1]


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def litter():
    return sorted(p.name for p in root.iterdir() if p.name.startswith("out") and p != out)
'''


@pytest.fixture
def kitchen(tmp_path):
    """Run a script that can fork exports of one table, in a process of its own."""
    store = store_in(tmp_path)
    verify(store, answer_table(store, question_table(store, 100, shard=20), pad=12_000))

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", KITCHEN + script, str(tmp_path)],
            capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_kill_at_any_moment_leaves_the_old_dataset_or_the_new_one(kitchen):
    output = kitchen(
        """
assert ended(child(lambda: export("old"))) == 0
before = content(out)
assert ended(child(lambda: export("new", root / "whole"))) == 0
after = content(root / "whole")
assert before != after


def killed_at(n):
    def work():
        left = [n]

        def hook(event, args):
            if event == "ctypes.dlsym" or (event in EVENTS and str(root) in str(args[:2])):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        export("new")

    return work


seen = []
for n in range(0, 400, 2):
    status = ended(child(killed_at(n)))
    state = "old" if content(out) == before else "new" if content(out) == after else "torn"
    assert state != "torn", n
    seen.append(state)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    if state == "new":
        assert ended(child(lambda: export("old"))) == 0
        assert content(out) == before
assert status == 0 and state == "new", (n, status, state)
assert not litter(), litter()
print(len(seen), seen.count("old"))
"""
    )
    kills, old = map(int, output.split())
    assert kills > 15
    assert 0 < old < kills


def test_full_disk_is_one_clear_error_and_leaves_the_old_dataset(kitchen):
    kitchen(
        """
assert ended(child(lambda: export("old"))) == 0
before = content(out)


def full(limit):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            export("new")
        except StoreError as error:
            message = str(error)
            assert "What was finished before is safe" in message and "make room" in message
        else:
            raise AssertionError("the disk was not full")

    return work


for limit in (100, 9_000):
    assert ended(child(full(limit))) == 0
    assert content(out) == before
    assert not litter(), litter()
"""
    )


def test_processes_that_export_to_one_folder_leave_a_whole_dataset(kitchen):
    kitchen(
        """
pids = [child(lambda recipe=recipe: export(recipe)) for recipe in ("a", "b", "a", "b")]
assert [ended(pid) for pid in pids] == [0] * 4
from stillroom.steps.export.record import Record
assert not list(Record.read(out).changed(out))
assert (out / "recipe.yaml").read_text() in ("a", "b")
assert not litter(), litter()
"""
    )
