"""The steps of OpenThoughts3 from real questions to a dataset, with a grader on a local server."""

import io
import json
from pathlib import Path
from xml.sax.saxutils import quoteattr

import polars as pl
import pytest
import zstandard
from aiohttp import web
from click.testing import CliRunner
from tests.servers import Seen, TeacherServer, answer

from stillroom.cli import cli
from stillroom.recipe.make import read_paths
from stillroom.store.store import Store

FILES = ("deepscaler_40k", "mbpp_train_val", "theoremqa", "scibench")
NAMES = ("deepscaler", "mbpp", "theoremqa", "scibench")


async def grade(seen: Seen, request: web.Request) -> web.StreamResponse:
    """Rate a problem by its length, from 1 to 10."""
    problem = seen.body["messages"][-1]["content"]
    form = {"difficulty": 1 + len(problem) % 10, "reasoning": "By length."}
    return await answer(json.dumps(form))(seen, request)


def questions(path: Path) -> list[str]:
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return [json.loads(line)["question"] for line in io.TextIOWrapper(stream, "utf-8")]


@pytest.fixture(scope="module")
def grader():
    with TeacherServer(grade) as server:
        yield server


@pytest.fixture
def run(tmp_path, data, grader, monkeypatch):
    """Run the smoke recipe, and return each step's manifest, and the command's output."""
    bodies = questions(data / "fixtures" / "kodcode_demo_questions.jsonl.zst")
    item = json.loads(
        (Path("src/stillroom/benchmarks/proxy_suite.jsonl").read_text().splitlines())[7]
    )["question"]
    rows = [
        f'<row Id="{i}" PostTypeId="1" Body={quoteattr(f"<p>{body}</p>")} />'
        for i, body in enumerate([*bodies, f"Please: {item} Thanks."])
    ]
    posts = tmp_path / "Posts.xml"
    posts.write_text(f"<posts>{''.join(rows)}</posts>")
    (tmp_path / "models.toml").write_text(
        f'[models."gpt-4o-mini"]\nengine = "openai"\nbase_url = "{grader.url}"\n'
    )
    monkeypatch.setenv("STILLROOM_BENCHMARKS", str(data / "benchmarks"))
    files = {n: data / "fixtures" / f"{f}.jsonl.zst" for n, f in zip(NAMES, FILES, strict=True)}
    files["stackexchange_codegolf"] = posts
    sources = [a for name, file in files.items() for a in ("--source", f"{name}={file}")]

    def go(verb, *more):
        arguments = [verb, "openthoughts3_smoke", *sources, "--models",
                     f"{tmp_path}/models.toml", "--store", f"{tmp_path}/store", *more]  # fmt: skip
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        found = read_paths(Store(tmp_path / "store"), "openthoughts3_smoke")
        return {p: b.artifact.manifest for p, b in found.items()}, result.output

    return go


@pytest.mark.data
@pytest.mark.slow
def test_smoke_goes_through_every_step_on_real_questions(run, tmp_path, grader):
    story, _ = run("run", "--out", f"{tmp_path}/out")
    rows = pl.read_parquet(tmp_path / "out" / "data" / "*.parquet")
    assert dict(rows["domain"].value_counts().iter_rows()) == {
        "math": 40 * 16,
        "code": 15 * 16,
        "science": 10 * 16,
    }
    assert story["math.decontaminate"].drops, "the mix holds MATH-500 problems and their twins"
    planted = story["code.mix.codegolf.decontaminate"].drops
    assert sum(planted.values()) == 1
    assert story["code.mix.codegolf.keep"].rows_out == 30
    assert story["math.keep"].rows_out == 120
    assert rows.group_by("question_id").len()["len"].unique().to_list() == [16]
    for manifest in story.values():
        assert manifest.rows_in == manifest.rows_out + sum(manifest.drops.values())
    bought = grader.total
    _, output = run("plan")
    assert f"{len(story)} of {len(story)} steps are in the store." in output
    run("run", "--out", f"{tmp_path}/out")
    assert grader.total == bought, "the second run buys nothing"
