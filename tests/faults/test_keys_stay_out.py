"""A planted key is found nowhere after a run: not in the store, the dataset, the card or a word."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from tests.fake_teacher import environment
from tests.servers import Seen, TeacherServer, answer, refusal, status

KEY = "planted-5e1f0c9a7b3d4e2f8a6c"
RECIPE = """\
name: hushed
models: {teacher: {name: some/model}}
domains:
  math:
    - source: {file: questions.jsonl, licence: cc0-1.0}
    - answer: {draws: 2}
"""


async def gossip(seen: Seen, request: web.Request) -> web.StreamResponse:
    """Repeat the key that came, in refusals and in errors that pass."""
    sent = request.headers["Authorization"]
    number = int(seen.body["messages"][-1]["content"].removesuffix("?"))
    if number % 4 == 1:
        return await refusal(400, f"bad request with {sent}")(seen, request)
    if number % 4 == 2 and seen.attempt == 0:
        return await status(500, f"trace: Authorization: {sent}")(seen, request)
    return await answer(f"The answer is {number}.")(seen, request)


def everything(folder: Path) -> bytes:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {".sqlite", ".toml", ".yaml"} <= {file.suffix for file in files}
    return b"\n".join(file.read_bytes() for file in files)


def run(folder: Path, verb: str = "run", *more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-X", "dev", "-m", "stillroom", verb, "recipe.yaml",
               "--store", "store", "--models", "models.toml", *more]  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=environment(TEACHER_KEY=KEY), text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("wanted", [KEY, "another"], ids=["accepted", "refused"])
def test_key_is_nowhere_after_a_run(tmp_path: Path, wanted: str) -> None:
    lines = (json.dumps({"question": f"{i}?"}) for i in range(12))
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with TeacherServer(gossip, api_key=wanted) as server:
        (tmp_path / "models.toml").write_text(
            f'[models."some/model"]\nengine = "openai"\nbase_url = "{server.url}"\n'
            'api_key_env = "TEACHER_KEY"\n'
        )
        done = run(tmp_path, "run", "--out", "out")
        told = run(tmp_path, "plan")
        sent = {headers["Authorization"] for headers in server.headers}
    assert sent == {f"Bearer {KEY}"}
    assert done.returncode == (0 if wanted == KEY else 1), done.stderr
    words = done.stdout + done.stderr + told.stdout + told.stderr
    assert KEY not in words
    assert KEY.encode() not in everything(tmp_path)
    if wanted == KEY:
        assert (tmp_path / "out" / "README.md").is_file()
        assert list(tmp_path.rglob("*.journal"))
    else:
        assert "[key]" in done.stderr
        assert "TEACHER_KEY" in done.stderr
