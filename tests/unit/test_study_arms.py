"""Arms change what they name and nothing else; a study file says what it cannot do."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import RecipeError
from stillroom.recipe.load import load_recipe, read_recipe
from stillroom.study.arms import NoSuchPlace, arms_of, change, made_of, replicate
from stillroom.study.load import is_study, load_study
from stillroom.study.search.form import load_search
from stillroom.study.search.plan import preview

BASE = yaml.safe_load("""
name: base
models:
  teacher: {name: stillroom/teacher-1, temperature: 0.9}
domains:
  math:
    - mix:
        a: [source: {procedural: {n: 10}}, take: 8]
        b: [source: {shipped: word_problems}]
      as: pool
    - dedup: exact
    - take: {n: 5, seed: 7}
    - answer
    - verify: math
""")
STUDY = """
question: Does it help?
base: base.yaml
rows: 10
arms:
  control: {math.take: 5}
  more: {math.take: 4}
student: {model: stillroom/base-1}
benchmarks: proxy_suite
"""


def steps(recipe):
    return {
        (s.get("as") or next(iter(s))) if isinstance(s, dict) else s: s
        for s in recipe["domains"]["math"]
    }


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("math.take", 3, ("take", {"take": {"n": 3, "seed": 7}})),
        ("math.take.n", 3, ("take", {"take": {"n": 3, "seed": 7}})),
        ("math.take", {"n": 3}, ("take", {"take": {"n": 3}})),
        ("math.answer.draws", 4, ("answer", {"answer": {"draws": 4}})),
        ("math.verify.by", "exact", ("verify", {"verify": {"by": "exact"}})),
        ("math.dedup", {"indel": 90}, ("dedup", {"dedup": {"indel": 90}})),
    ],
)
def test_a_change_sets_what_its_path_names(path, value, expected):
    before = copy.deepcopy(BASE)
    changed = change(BASE, {path: value})
    name, step = expected
    assert steps(changed)[name] == step
    assert before == BASE
    others = [s for n, s in steps(changed).items() if n != name]
    assert others == [s for n, s in steps(BASE).items() if n != name]


def test_a_list_stands_for_steps():
    assert "dedup" not in steps(change(BASE, {"math.dedup": []}))
    changed = change(BASE, {"math.dedup": [{"label": "length"}, {"dedup": "exact"}]})
    assert list(steps(changed)) == ["pool", "label", "dedup", "take", "answer", "verify"]


def test_branches_of_a_mix_and_models_can_be_named():
    changed = change(BASE, {"math.pool.a.take": 2, "models.teacher.name": "stillroom/novice-1"})
    assert steps(changed)["pool"]["mix"]["a"][1] == {"take": 2}
    assert changed["models"]["teacher"] == {"name": "stillroom/novice-1", "temperature": 0.9}
    branch = change(BASE, {"math.pool.b.source.shipped": "planted_copies"})
    assert steps(branch)["pool"]["mix"]["b"] == [{"source": {"shipped": "planted_copies"}}]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("code.take", "no domain code; expected one of math, or models"),
        ("math.keep", "no such step; expected one of pool, dedup, take, answer, verify there"),
        ("math", "no such step"),
        ("models.judge.name", "no such role; expected one of teacher"),
        ("math.pool.c.take", "no branch c; expected one of a, b"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(path, words):
    with pytest.raises(NoSuchPlace, match=words):
        change(BASE, {path: 3})


@given(st.dictionaries(
    st.sampled_from(["math.take", "math.answer.draws", "models.teacher.temperature"]),
    st.integers(1, 9), max_size=3,
))  # fmt: skip
def test_order_of_changes_does_not_matter_and_making_them_twice_is_once(changes):
    once = change(BASE, changes)
    backwards = change(BASE, dict(reversed(changes.items())))
    assert once == backwards == change(once, changes)


def test_a_replication_shifts_every_draw_but_the_sources():
    recipe = read_recipe(yaml.safe_dump(BASE))
    zero, two = replicate(recipe, 0), replicate(recipe, 2)
    assert zero == recipe.bound()
    pool, _, take, *_ = two["math"]
    assert take.seed == 9
    assert pool.seed == recipe.domains["math"][0].seed + 2
    assert pool.branches["a"][1].seed == 44
    assert pool.branches["a"][0] == recipe.bound()["math"][0].branches["a"][0]


def test_a_replication_shifts_the_draws_inside_of_steps_too():
    base = copy.deepcopy(BASE)
    base["domains"]["math"][1:2] = [
        {"dedup": {"minhash": {"seed": 5}}},
        {"label": {"classifier": {
            "positives": {"good": {"procedural": {"n": 9, "seed": 3}}},
            "negatives": "bad.jsonl",
        }}},
    ]  # fmt: skip
    recipe = read_recipe(yaml.safe_dump(base))
    assert replicate(recipe, 0) == recipe.bound()
    _, dedup, label, take, *_ = replicate(recipe, 2)["math"]
    assert dedup.minhash.seed == 7
    assert label.classifier.training.seed == 2
    assert label.classifier.positives == recipe.domains["math"][2].classifier.positives
    assert take == recipe.bound()["math"][3].model_copy(update={"seed": 9})


def write(tmp_path, text):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rows: 10", "rows: 9"),
        ("{model: stillroom/base-1}", "{settings: {steps: 9}}"),
        ("{math.take: 4}", "{math.take: 3}"),
        ("rows: 10", "rows: 10\nseeds: 7"),
    ],
)
def test_what_makes_other_students_is_another_look_and_words_are_not(tmp_path, old, new):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE, sort_keys=False))

    def made(text):
        (tmp_path / "study.yaml").write_text(text)
        study = load_study(tmp_path / "study.yaml")
        return made_of(study, arms_of(study, beside=tmp_path))

    assert made(STUDY.replace("Does it help?", "Does it?")) == made(STUDY)
    assert made(STUDY.replace(old, new)) != made(STUDY)


def test_a_study_is_read_and_named_by_its_folder(tmp_path):
    file = write(tmp_path, STUDY)
    study = load_study(file)
    assert study.name == tmp_path.name
    assert study.control == "control"
    assert is_study(file)
    assert not is_study(tmp_path / "base.yaml")
    recipes = arms_of(study, beside=tmp_path)
    assert [recipes[arm].domains["math"][2].n for arm in study.arms] == [5, 4]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rows: 10", "rows: 10\ntokens: 5", "both are given of rows and tokens"),
        ("rows: 10", "", "neither is given of rows and tokens"),
        ("more: {math.take: 4}", "more: {math.take: 4, math.dedup: []}",
         "arm more changes math.dedup, unlike arm control"),
        ("more: {math.take: 4}", "more: {}", "arm more leaves math.take as is, unlike arm control"),
        ("question: Does", "questions: Does", "questions is no field; expected one of"),
        ("benchmarks: proxy_suite", "benchmarks: {develop: [x], held_out: [x]}",
         "x both decides and is held out"),
        ("more: {math.take: 4}", "", "arms holds 1; expected 2 or more"),
        ("{model: stillroom/base-1}", "{model: a, trainer: magic}", "trainer"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_done_is_refused_with_its_place(tmp_path, old, new, words):
    assert old in STUDY
    file = write(tmp_path, STUDY.replace(old, new))
    with pytest.raises(RecipeError, match=words) as caught:
        load_study(file)
    assert str(caught.value).startswith(f"{file}:")


@pytest.mark.parametrize("inside", ["", "my study (2)", "été"])
def test_a_study_has_a_name_wherever_it_is_read_from(tmp_path, monkeypatch, inside):
    folder = tmp_path / "lab" / inside
    folder.mkdir(parents=True)
    write(folder, STUDY)
    monkeypatch.chdir(folder)
    name = load_study(Path("study.yaml")).name
    assert name == {"": "lab", "my study (2)": "my-study-2", "été": "t"}[inside]
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert load_study(Path("../study.yaml")).name == name


@pytest.mark.parametrize("role", ["develop", "held_out"])
def test_benchmarks_that_are_files_stand_beside_the_study(tmp_path, role):
    other = {"develop": "held_out", "held_out": "develop"}[role]
    file = write(
        tmp_path,
        STUDY.replace("proxy_suite", f"{{{role}: [sets/mine.yaml], {other}: [proxy_suite]}}"),
    )
    with pytest.raises(RecipeError, match=r"benchmarks: .*sets.mine.yaml: no such file") as caught:
        load_study(file)
    assert str(caught.value).startswith(f"{file}: ")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "mine.yaml").write_text(
        "title: Mine\nabout: Sums.\ndomain: math\nlicence: mine\nfile: items.jsonl\n"
        "question: q\nreference: a\nsitting: {verify: math, repeats: 1, temperature: 0.7}\n"
    )
    found = load_study(file).benchmarks
    assert getattr(found, role) == (str(tmp_path / "sets" / "mine.yaml"),)
    assert getattr(found, other) == ("proxy_suite",)


def test_a_file_of_another_kind_says_which_verb_takes_it(tmp_path):
    file = write(tmp_path, STUDY)
    base = tmp_path / "base.yaml"
    with pytest.raises(RecipeError, match=r"it is a study; expected a recipe.*`stillroom study "):
        load_recipe(str(file))
    with pytest.raises(RecipeError, match=r"it is a recipe; expected a study.*`stillroom run "):
        load_study(base)
    with pytest.raises(RecipeError, match=r"it is a recipe; expected a search.*`stillroom run "):
        load_search(base)
    search = tmp_path / "search.yaml"
    search.write_text("base: base.yaml\nstages: [study.yaml]\n")
    with pytest.raises(RecipeError, match=r"it is a search; expected a study.*`stillroom search "):
        load_study(search)
    same = write(tmp_path, STUDY.replace("{math.take: 4}", "{math.take: 5}"))
    with pytest.raises(RecipeError, match="arms control and more are the same recipe"):
        preview(load_search(search), beside=same.parent)


def test_an_arm_that_does_not_fit_the_base_is_named(tmp_path):
    text = STUDY.replace("{math.take: 5}", "{math.keep: 5}").replace(
        "{math.take: 4}", "{math.keep: 4}"
    )
    study = load_study(write(tmp_path, text))
    with pytest.raises(RecipeError, match=r"arm control: math.keep: no such step"):
        arms_of(study, beside=tmp_path)
    text = STUDY.replace("{math.take: 4}", "{math.take: -4}")
    study = load_study(write(tmp_path, text))
    with pytest.raises(RecipeError, match=r"base.yaml, arm more:\d+: .*-4"):
        arms_of(study, beside=tmp_path)
    with pytest.raises(RecipeError, match="no such study"):
        load_study(tmp_path / "none.yaml")
