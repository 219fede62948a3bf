"""The shipped recipes, from the first source to the finished dataset folder."""

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from stillroom.cli import cli
from stillroom.errors import StillroomError
from stillroom.recipe.load import load_recipe
from stillroom.recipe.make import read_paths
from stillroom.store.store import Store
from stillroom.text.normal import normal_form


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def manifests(store: Path, recipe: str) -> dict[str, object]:
    return {p: b.artifact.manifest for p, b in read_paths(Store(store), recipe).items()}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    output = run("run", "quickstart", "--store", f"{folder}/store", "--out", f"{folder}/out")
    return folder, output


def test_quickstart_makes_a_verified_dataset(quickstart):
    folder, output = quickstart
    rows = pl.read_parquet(folder / "out" / "data" / "*.parquet")
    assert f"{rows.height:,} rows in" in output
    assert rows.height >= 500
    assert set(rows["domain"]) == {"math", "code", "science"}
    assert set(rows["verdict"]) == {"correct"}
    assert set(rows["licence"]) == {"apache-2.0"}
    turns = rows["conversations"][0].to_list()
    assert [t["from"] for t in turns] == ["human", "gpt"]
    assert turns[1]["value"].startswith("<think>\n")
    assert (folder / "out" / "README.md").read_text().startswith("---\n")


def test_the_readme_shows_what_the_demo_prints(quickstart):
    folder, output = quickstart
    said = [_untimed(line) for line in output.splitlines()]
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    block = readme.split("$ make demo\n")[1].split("```")[0].splitlines()
    steps = [line for line in block if line.startswith("+ ")]
    assert len(steps) > 10
    assert [line for line in steps if _untimed(line) not in said] == []
    rows, _, _ = block[-1].partition(" in datasets/quickstart/")
    assert f"{rows} in {folder}/out/" in output
    (more,) = [line for line in block if "more lines for code and science" in line]
    assert int(more.split()[1]) == sum(line.startswith(("+ code.", "+ science.")) for line in said)


def _untimed(line):
    return line.rpartition(" · ")[0] if line.endswith(" s") else line


def test_quickstart_drops_duplicates_and_all_planted_copies(quickstart):
    folder, _ = quickstart
    story = manifests(folder / "store", "quickstart")
    for domain in ("math", "code", "science"):
        assert story[f"{domain}.dedup"].drops["duplicate"] > 0
        planted = story[f"{domain}.mix.planted.source"].rows_out
        assert story[f"{domain}.decontaminate"].drops == {"contaminated by ngram": planted}


def test_quickstart_counts_add_up_at_every_step(quickstart):
    folder, _ = quickstart
    for manifest in manifests(folder / "store", "quickstart").values():
        assert manifest.rows_in == manifest.rows_out + sum(manifest.drops.values())


def test_quickstart_again_finds_everything(quickstart):
    folder, _ = quickstart
    output = run("plan", "quickstart", "--store", f"{folder}/store")
    assert "32 of 32 steps are in the store." in output


def test_quickstart_loads_with_datasets(quickstart):
    datasets = pytest.importorskip("datasets")
    folder, _ = quickstart
    rows = datasets.load_dataset(str(folder / "out"), split="train")
    assert rows.num_rows == pl.read_parquet(folder / "out" / "data" / "*.parquet").height


def test_why_tells_of_a_planted_copy(quickstart):
    folder, _ = quickstart
    copies = Path(__file__).parents[2] / "src/stillroom/steps/source/planted_copies.jsonl"
    copy = json.loads(copies.read_text().splitlines()[0])
    output = run("why", copy["question"].strip(), "--store", f"{folder}/store")
    assert "decontaminate: dropped: contaminated" in output
    assert "against proxy_suite:" in output


def test_why_of_an_unknown_row_says_so(quickstart):
    folder, _ = quickstart
    with pytest.raises(StillroomError, match="no row with this id or text"):
        run("why", "no such text anywhere", "--store", f"{folder}/store")


def test_ls_and_show_need_no_key(quickstart):
    folder, _ = quickstart
    assert "math.take" in run("ls", "quickstart", "--store", f"{folder}/store")
    shown = run("show", "quickstart", "math.take", "-n", "2", "--json", "--columns",
                "id,question", "--store", f"{folder}/store")  # fmt: skip
    assert [set(json.loads(line)) for line in shown.splitlines()] == [{"id", "question"}] * 2
    dropped = run("show", "quickstart", "math.dedup", "--drops", "--json", "--store",
                  f"{folder}/store")  # fmt: skip
    assert json.loads(dropped.splitlines()[0])["reason"] == "duplicate"


def test_show_puts_the_texts_of_drops_beside_their_ids(quickstart):
    folder, _ = quickstart
    store = ("--store", f"{folder}/store")
    first = json.loads(run("show", "quickstart", "math.dedup", "--drops", "--json", *store)
                       .splitlines()[0])  # fmt: skip
    words = dict(
        line.split("  ", 1)
        for line in run(
            "show", "quickstart", "math.dedup", "--drops", "-n", "1", *store
        ).splitlines()
        if "  " in line
    )
    assert words["id"].strip() == first["id"]
    assert words["witness"].strip() == first["witness"]
    assert normal_form(words["text"]) == normal_form(words["lost to"])
    shown = run("show", "quickstart", "math.dedup", "--drops", "-n", "1", *store)
    assert "1 of 7 dropped rows; -n prints more. `stillroom why ID` tells a row's story." in shown
    whole = run("show", "quickstart", "math.take", "-n", "200", "--columns", "id", *store)
    assert "\n200 of 200 rows. `stillroom why ID`" in whole


def test_gc_frees_only_what_no_recipe_uses(quickstart, tmp_path):
    folder, _ = quickstart
    store = f"{folder}/store"
    assert "0 artifacts" in run("gc", "--store", store)
    text = "name: other\ndomains: {math: [{source: {shipped: word_problems}}, {take: 5}]}\n"
    (tmp_path / "other.yaml").write_text(text)
    run("run", f"{tmp_path}/other.yaml", "--store", store, "--out", f"{tmp_path}/out")
    (tmp_path / "other.yaml").write_text(text.replace("5", "6"))
    run("run", f"{tmp_path}/other.yaml", "--store", store, "--out", f"{tmp_path}/out")
    assert "1 artifacts and 0 unfinished ones would be freed" in run("gc", "--store", store)
    assert "1 artifacts and 0 unfinished ones freed" in run("gc", "--yes", "--store", store)
    assert "32 of 32 steps" in run("plan", "quickstart", "--store", store)


REAL = {
    "gsm8k": "fixtures/gsm8k_train.jsonl.zst",
    "math_train": "fixtures/math_train.jsonl.zst",
    "deepscaler": "fixtures/deepscaler_40k.jsonl.zst",
    "math500": "benchmarks/math500.jsonl.zst",
    "gsm8k_test": "benchmarks/gsm8k_test.jsonl.zst",
}


@pytest.mark.data
def test_real_math_on_real_questions(tmp_path, data):
    sources = [a for name, file in REAL.items() for a in ("--source", f"{name}={data / file}")]
    run("run", "real_math", *sources, "--store", f"{tmp_path}/store", "--out", f"{tmp_path}/out")
    story = manifests(tmp_path / "store", "real_math")
    assert story["math.mix"].rows_in == 7_473 + 7_474 + 39_808
    # 7,492 rows of the mix equal a MATH question and more repeat each other.
    assert story["math.dedup"].drops["duplicate"] > 7_492
    assert story["math.decontaminate"].drops["contaminated by ngram"] > 0
    rows = pl.read_parquet(tmp_path / "out" / "data" / "*.parquet")
    assert rows.height == 400
    verdicts = dict(rows["verdict"].value_counts().iter_rows())
    assert verdicts["incorrect"] > 100, "the toy teacher cannot do competition mathematics"
    assert "correct" not in verdicts or verdicts["correct"] < 200


def test_shipped_recipes_all_load():
    folder = Path(__file__).parents[2] / "recipes"
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    assert {"quickstart", "real_math"} <= set(names)
    assert [load_recipe(name).name for name in names] == names
