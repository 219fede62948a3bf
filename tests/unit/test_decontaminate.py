"""The step `decontaminate`: what it finds, what it says, and what it refuses."""

import importlib.resources
import json
import re

import polars as pl
import pytest
import zstandard
from huggingface_hub import constants
from tests.fakes import FakeModel, FakeModels
from tests.hub_server import HubServer
from tests.kitchen import Kitchen, drops, rows

from stillroom.benchmarks import registry
from stillroom.errors import RecipeError, SourceError
from stillroom.models.chat import Completion
from stillroom.models.embeddings import NgramEmbedder
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import read_recipe
from stillroom.steps.decontaminate.decontaminate import Decontaminate
from stillroom.steps.decontaminate.letters import Letters
from stillroom.steps.source import fetch

TRAIN = "A train leaves at noon and goes 60 km/h; how far is it at three?"
BENCH = [TRAIN, "Short one?"]
TOKENIZER = importlib.resources.files("stillroom.models.embedded") / "base-1" / "tokenizer.json"


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "store")


@pytest.fixture
def run(kitchen, tmp_path):
    """Decontaminate questions against two items; return the questions that are left."""

    def go(*questions, fields="ngram: 8", items=BENCH):
        for name, texts in (("bench", items), ("asked", questions)):
            lines = [json.dumps({"question": text}) + "\n" for text in texts]
            (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        kitchen.sources = {"bench": f"{tmp_path}/bench.jsonl", **kitchen.sources}
        source = f"- source: {tmp_path}/asked.jsonl"
        table = kitchen.chain(f"{source}\n- decontaminate: {{against: bench, {fields}}}")
        return [row["question"] for row in rows(table, "question")]

    return go


def only_drop(kitchen):
    (drop,) = drops(kitchen.built[-1]).iter_rows(named=True)
    return drop


def test_copy_is_dropped_with_the_item_and_the_shared_words(run, kitchen):
    copy = "Hello! a TRAIN leaves at noon, and goes 60 km/h. Explain."
    assert run(copy, "What is 2+2?") == ["What is 2+2?"]
    drop = only_drop(kitchen)
    assert drop["reason"] == "contaminated by ngram"
    assert drop["score"] == 10.0
    assert drop["witness"] == "bench:0 “a train leaves at noon and goes 60 km h”"


def test_short_item_is_compared_whole_unless_told_otherwise(run):
    assert run("short ONE", "A short one?") == ["A short one?"]
    assert run("short ONE", fields="ngram: {n: 8, short: none}") == ["short ONE"]


def test_no_method_means_thirteen_words(run, kitchen):
    shorter, whole = "A train leaves at noon and goes 60 km/h; what is Rome?", TRAIN + " Say."
    assert run(shorter, whole, fields="text: normal") == [shorter]


CHINESE = "小明有三个苹果，他又买了四个，然后送给小红两个，请问小明现在还剩下多少个苹果？"


JAPANESE = "一辺の長さが3である正方形の中に円があり、四つの辺すべてに接している。面積を求めよ。"
THAI = "ร้านค้าแห่งหนึ่งขายแอปเปิลได้วันละ 12 ผล ถ้าขายติดต่อกันเป็นเวลาเจ็ดวันจะขายได้ทั้งหมดกี่ผล"


@pytest.mark.parametrize("item", [CHINESE, JAPANESE, THAI])
@pytest.mark.parametrize("before", ["请解答：", "Solve: ", "次の問題を解け。"])
def test_items_without_spaces_between_words_are_found_in_a_question(run, kitchen, item, before):
    other = "小红有五支铅笔，老师又奖励给她两支，请问她现在一共有多少支铅笔可以用来写字？"
    assert run(before + item, other, fields="ngram: 13", items=[TRAIN, item]) == [other]
    drop = only_drop(kitchen)
    assert drop["reason"] == "contaminated by ngram"
    assert drop["score"] >= 13
    assert drop["witness"].startswith("bench:1 “")
    quoted = re.sub(r"\W", "", drop["witness"].split("“")[1])
    assert quoted in re.sub(r"\W", "", item)


def test_runs_of_letters_are_as_long_as_those_of_words(run):
    letters = "".join(c for c in CHINESE if c.isalpha())
    short, long = letters[:25], letters[:26]
    left = run(f"另一道题：{short}吗", f"另一道题：{long}吗", fields="ngram: 13", items=[CHINESE])
    assert left == [f"另一道题：{short}吗"]
    assert run(f"另一道题：{short}吗", fields="ngram: 12", items=[CHINESE]) == []


def test_names_in_another_script_change_nothing(run):
    text = "Who was 孔子, and when did he live in the state of 鲁国?"
    assert run(text, fields="ngram: 13", items=["Who was 孔子?", CHINESE]) == [text]


def test_indel_finds_what_no_run_of_words_shows(run, kitchen):
    text = "The train leaves at noon, it goes 65 km/h: how far is it at four?"
    assert run(text, fields="ngram: 8") == [text]
    assert run(text, fields="indel: 75") == []
    drop = only_drop(kitchen)
    assert drop["reason"] == "contaminated by indel"
    assert 75 <= drop["score"] < 100
    assert drop["witness"] == f"bench:0 “{TRAIN}”"


def test_both_methods_are_named_with_what_each_saw(run, kitchen):
    assert run(TRAIN, fields="indel: 75, ngram: 13") == []
    drop = only_drop(kitchen)
    assert drop["reason"] == "contaminated by indel and ngram"
    assert drop["score"] == 100.0
    words = "a train leaves at noon and goes 60 km h how far is it at three"
    assert drop["witness"] == f"bench:0 “{TRAIN}”; bench:0 “{words}”"


def test_raw_texts_differ_in_case_and_space_normal_forms_do_not(run):
    loud = TRAIN.upper()
    assert run(loud, fields="indel: 75") == []
    assert run(loud, fields="indel: 75, text: raw") == [loud]


def test_tokens_of_a_tokenizer(run, kitchen):
    copy = f"Well: {TRAIN}"
    fields = f"ngram: {{n: 13, tokenizer: {TOKENIZER}}}, text: raw"
    assert run(copy, "What is 2+2?", fields=fields) == ["What is 2+2?"]
    assert "train leaves at noon" in only_drop(kitchen)["witness"]
    assert run(TRAIN.upper(), fields=fields) == [TRAIN.upper()]


def test_tokenizer_of_the_hub_needs_a_commit_and_takes_a_stand_in(run, kitchen):
    kitchen.sources = {"some/model": str(TOKENIZER)}
    name = f"tokenizer: some/model, revision: {'a' * 40}"
    assert run(TRAIN, fields=f"ngram: {{n: 13, {name}}}") == []
    with pytest.raises(RecipeError, match="40 digits of a commit"):
        run(TRAIN, fields="ngram: {n: 13, tokenizer: some/model}")


def test_missing_and_broken_tokenizers_are_named(run, tmp_path):
    with pytest.raises(SourceError, match=r"gone\.json: no such tokenizer"):
        run(TRAIN, fields=f"ngram: {{tokenizer: {tmp_path}/gone.json}}")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(SourceError, match=r"broken\.json: cannot be read as a tokenizer"):
        run(TRAIN, fields=f"ngram: {{tokenizer: {tmp_path}/broken.json}}")


def test_witness_is_one_printable_line(run, kitchen):
    item = "What\n\n is \x1b[31m this " + "and that " * 60
    run(item, fields="indel: 75", items=[item])
    quote = only_drop(kitchen)["witness"]
    assert quote.isprintable()
    assert quote.endswith("…”")
    assert len(quote) < 300


@pytest.mark.parametrize(
    "fields", ["indel: 75, ngram: 6", f"ngram: {{n: 5, tokenizer: {TOKENIZER}}}"]
)
def test_slices_and_workers_do_not_matter(run, kitchen, monkeypatch, fields):
    questions = [f"{'So: ' * (i % 3)}{TRAIN[i % 9 :]} {i}" for i in range(40)]
    left, whole = run(*questions, fields=fields), drops(kitchen.built[-1])
    monkeypatch.setattr(Decontaminate, "SLICE", 7)
    kitchen.root = kitchen.root.with_name("other")
    assert run(*questions, fields=fields) == left
    assert drops(kitchen.built[-1]).equals(whole)
    assert whole.height > 0


def test_misspelt_benchmark_is_corrected(kitchen, tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"question": "x?"}\n')
    for name, message in (
        ("nosuch", "nosuch: no such file, and no benchmark of this name. Known ones are"),
        ("maths500", "maths500: no such file.*Did you mean math500?"),
        ("gone.jsonl", r"gone\.jsonl: no such file. Check the path"),
    ):
        with pytest.raises(SourceError, match=message):
            kitchen.chain(f"- source: {tmp_path}/asked.jsonl\n- decontaminate: {name}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{against: [a/b.jsonl, c/b.jsonl]}", "names b twice"),
        ("{against: [], ngram: 3}", "against holds 0; expected 1 or more"),
        ("{against: math500, indel: 30}", "greater than or equal to 50"),
        ("{against: math500, ngram: 0}", "greater than or equal to 1"),
        ("{against: math500, text: bold}", "'normal' or 'raw'"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    text = f"name: t\ndomains: {{math: [{{source: x.jsonl}}, {{decontaminate: {fields}}}]}}"
    with pytest.raises(RecipeError, match=message):
        read_recipe(text)


class TestRegistry:
    def test_every_member_of_every_set_is_there(self):
        assert len(registry.sets()["openthoughts12"]) == 12
        for members in registry.sets().values():
            assert set(members) <= set(registry.benchmarks())

    def test_sets_of_openthoughts_agree_with_the_roles(self):
        for role in ("develop", "held_out"):
            for name in registry.sets()[f"openthoughts_{role}"]:
                assert registry.benchmarks()[name].role == role

    def test_set_expands_to_its_members_in_order(self):
        step = Decontaminate(against=["openthoughts12", "proxy_suite", "mine.jsonl"])
        twelve = registry.sets()["openthoughts12"]
        assert list(step.against) == [*twelve, "proxy_suite", "mine"]
        assert step.against["math500"].hub == "HuggingFaceH4/MATH-500"
        assert step.against["mine"].file == "mine.jsonl"

    def test_registry_name_in_a_mapping_needs_no_fields(self):
        step = Decontaminate(against={"math500": None, "own": {"file": "own.jsonl"}})
        assert step.against["math500"].files == "test.jsonl"
        assert step.against["own"].file == "own.jsonl"

    def test_local_copies_are_found_by_name(self, tmp_path, monkeypatch):
        (tmp_path / "aime24.jsonl.zst").touch()
        (tmp_path / "unrelated.jsonl").touch()
        assert registry.local_copies(["aime24", "math500", "unrelated"]) == {}
        monkeypatch.setenv(registry.FOLDER, str(tmp_path))
        found = registry.local_copies(["aime24", "math500", "unrelated"])
        assert found == {"aime24": f"{tmp_path}/aime24.jsonl.zst"}

    def test_items_agree_with_what_the_package_ships(self):
        shipped = importlib.resources.files("stillroom.benchmarks") / "proxy_suite.jsonl"
        count = len(shipped.read_text().splitlines())
        assert registry.benchmarks()["proxy_suite"].items == count


@pytest.mark.data
def test_local_benchmarks_have_as_many_items_as_the_registry_says(data):
    for name in ("math500", "aime24", "aime25", "hmmt_feb25", "jeebench", "gsm8k_test"):
        lines = pl.read_ndjson(data / "benchmarks" / f"{name}.jsonl.zst").height
        assert registry.benchmarks()[name].items == lines


def test_unpinned_benchmark_reads_the_newest_commit_and_says_so(kitchen, tmp_path, monkeypatch):
    with HubServer() as hub:
        commit = hub.add("some/bench", {"b.jsonl": json.dumps({"question": TRAIN}).encode()})
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        fetch.newest_commit.cache_clear()
        (tmp_path / "asked.jsonl").write_text(json.dumps({"question": TRAIN}) + "\n")
        against = "{b: {hub: some/bench, revision: unpinned, files: b.jsonl}}"
        chain = f"- source: {tmp_path}/asked.jsonl\n- decontaminate: {{against: {against}}}"
        assert kitchen.chain(chain).height == 0
        notes = kitchen.built[-1].artifact.manifest.notes
        assert notes == [f"b: no revision is pinned; read at {commit}."]
        hub.add("some/bench", {"b.jsonl": json.dumps({"question": "Other?"}).encode()})
        fetch.newest_commit.cache_clear()
        assert kitchen.chain(chain).height == 1
        fetch.newest_commit.cache_clear()


class TestJudged:
    """The same problem in other words: near by spelling here, and judged by a fake."""

    RECIPE = """\
name: test
models: {{judge: {{name: some/judge}}}}
domains:
  math:
    - source: {folder}/asked.jsonl
    - decontaminate:
        against: bench
        {more}judged: {{embedder: stillroom/ngrams-1, floor: 0.3, k: 1{fields}}}
"""

    @pytest.fixture
    def judge(self, kitchen, tmp_path):
        def reply(request):
            first = request.messages[-1].content.split("Second problem:")[0]
            if "mumble" in first:
                return Completion(None, "Who can say?", "stop", 1, 1)
            form = {"same": "noon" in first or "midday" in first, "reason": "r"}
            return Completion(None, json.dumps(form), "stop", 1, 1)

        class Models(FakeModels):
            def embedder(self, name):
                return NgramEmbedder()

        model = FakeModel(reply)
        kitchen.models = Models(model)
        with Ledger(tmp_path / "ledger") as ledger:
            kitchen.ledger = lambda: ledger
            yield model

    def ask(self, kitchen, tmp_path, *questions, more="", fields=""):
        for name, texts in (("bench", BENCH), ("asked", questions)):
            lines = [json.dumps({"question": text}) + "\n" for text in texts]
            (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        kitchen.sources = {"bench": f"{tmp_path}/bench.jsonl"}
        text = self.RECIPE.format(folder=tmp_path, more=more, fields=fields)
        return [row["question"] for row in rows(kitchen.run(text)["math"], "question")]

    REWORDED = "At midday a train sets off at 60 km/h; where is it, how far, at three?"
    OTHER = "A train goes 60 km/h; how long is it if it passes me in three seconds?"
    MUMBLE = "mumble: A train leaves and goes 60 km/h; how far is it at three?"

    def test_same_problem_goes_other_and_undecided_ones_stay(self, kitchen, tmp_path, judge):
        asked = (self.REWORDED, self.OTHER, self.MUMBLE, "Prove it.")
        assert self.ask(kitchen, tmp_path, *asked) == [self.OTHER, self.MUMBLE, "Prove it."]
        drop = only_drop(kitchen)
        assert drop["reason"] == "contaminated by judge"
        assert 0.3 < drop["score"] < 1
        assert drop["witness"] == f"bench:0 “{TRAIN}”"
        notes = kitchen.built[-1].artifact.manifest.notes
        assert notes == [
            "bench: a local file stood in for what the recipe names (--source).",
            "1 near pairs are undecided; their questions stay.",
        ]

    def test_what_another_method_found_is_not_paid_for(self, kitchen, tmp_path, judge):
        assert self.ask(kitchen, tmp_path, TRAIN, self.REWORDED, more="indel: 90\n        ") == []
        assert judge.asked.total() == 1
        reasons = sorted(drops(kitchen.built[-1])["reason"])
        assert reasons == ["contaminated by indel", "contaminated by judge"]

    def test_wording_and_judge_enter_the_key_and_a_rerun_buys_nothing(
        self, kitchen, tmp_path, judge
    ):
        self.ask(kitchen, tmp_path, self.REWORDED)
        before = judge.asked.total()
        recipe = read_recipe(self.RECIPE.format(folder=tmp_path, more="", fields=""))
        (_, step) = recipe.bound()["math"]
        assert step.identity()["judged"]["judge"]["name"] == "some/judge"
        assert len(step.identity()["judged"]["wording"]) == 32
        kitchen.root = kitchen.root.with_name("fresh")
        self.ask(kitchen, tmp_path, self.REWORDED)
        assert judge.asked.total() == before

    def test_missing_role_is_named(self, tmp_path):
        text = self.RECIPE.format(folder=tmp_path, more="", fields=", judge: nobody")
        with pytest.raises(RecipeError, match=r"judged\.judge.*nobody"):
            read_recipe(text)


@pytest.mark.data
def test_problems_in_chinese_are_found_behind_a_line_and_not_in_each_other(data):
    with zstandard.open(data / "benchmarks/olymmath.jsonl.zst", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["question"] for line in lines]
    chinese = pl.Series(texts).filter(pl.Series(texts).str.contains(r"\p{Han}"))
    index = Letters(chinese, 13, "whole")
    found = list(index.find("题目如下：" + chinese, workers=1))
    assert len(chinese) == 200
    assert len(found) > 180
    assert all(text == item for text, item, _, _ in found)
