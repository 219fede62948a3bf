"""Datasets in the forms that other programs read, and read by those that are at hand."""

import importlib.resources

import datasets
import pytest
from datasets import load_dataset
from tests.kitchen import Kitchen, cook
from tests.tables import story_of

from stillroom.errors import ExportError, RecipeError
from stillroom.recipe.load import read_recipe
from stillroom.steps.export.export import Export, write_dataset

RIGHT = ("I add.", r"It is \boxed{4}.")
LONG = ("I add, and add again.", r"It is \boxed{4}.")
WRONG = ("I guess.", r"It is \boxed{5}.")
PAIR = ["verify: math", "label: {pair: {chosen: shortest correct, rejected: longest correct}}"]
ONE = "take: {n: 1, per: question_id}"


@pytest.fixture
def exported(tmp_path):
    datasets.disable_progress_bars()

    def export(steps, texts, *, questions=3, reference="4", **fields):
        table, _ = cook(tmp_path, steps, texts, questions=questions, reference=reference)
        tables = {"math": table}
        write_dataset(
            tmp_path / "out",
            name="made",
            recipe_text="name: made\n",
            tables=tables,
            story=story_of(tables),
            export=Export(**fields),
        )
        return load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))["train"]

    return export


def user(number=0):
    return [{"role": "user", "content": f"Question {number}?"}]


def test_completion_keeps_the_loss_apart_from_the_prompt(exported):
    rows = exported([], [RIGHT], format="completion")
    assert rows[0]["prompt"] == user()
    assert rows[0]["completion"] == [
        {"role": "assistant", "content": "<think>\nI add.\n</think>\n\nIt is \\boxed{4}."}
    ]
    assert {"teacher", "domain", "question_id"} <= set(rows.column_names)


def test_loss_mask_by_the_chat_template_covers_the_completion_alone(exported):
    transformers = pytest.importorskip("transformers")
    folder = importlib.resources.files("stillroom.models.embedded") / "teacher-1"
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    for row in exported([], [RIGHT, WRONG], format="completion"):
        before = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tokenize=False
        )
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        assert whole.startswith(before)
        learned = whole.removeprefix(before)
        assert row["completion"][0]["content"].partition("</think>")[2].strip() in learned
        assert "Question" not in learned


def test_openthoughts_metadata(exported):
    rows = exported([], [RIGHT], format="openthoughts")
    assert rows[0] == {
        "problem": "Question 0?",
        "deepseek_reasoning": "I add.",
        "deepseek_solution": r"It is \boxed{4}.",
        "ground_truth_solution": "4",
        "domain": "math",
        "source": "q",
        "test_cases": None,
        "starter_code": None,
    }


def test_verl_has_the_reference_where_its_reward_looks(exported):
    steps = ["verify: math", "label: pass_rate", ONE]
    rows = exported(steps, [RIGHT, WRONG], format="verl")
    assert len(rows) == 3
    row = rows[0]
    assert set(row) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
    assert row["prompt"] == user()
    assert row["reward_model"] == {"style": "rule", "ground_truth": "4"}
    assert row["ability"] == "math"
    assert row["extra_info"]["pass_rate"] == 0.5
    assert row["extra_info"]["draws_decided"] == 2
    assert row["extra_info"]["split"] == "train"


def test_verl_from_questions_alone(tmp_path):
    datasets.disable_progress_bars()
    (tmp_path / "q.jsonl").write_text('{"question": "One?", "reference": "1"}\n')
    table = Kitchen(tmp_path / "store").chain(f"- source: {{file: {tmp_path / 'q.jsonl'}}}")
    write_dataset(
        tmp_path / "out", name="made", recipe_text="", tables={"math": table},
        story=story_of({"math": table}), export=Export(format="verl"),
    )  # fmt: skip
    [row] = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))["train"]
    assert row["prompt"] == [{"role": "user", "content": "One?"}]
    assert row["extra_info"]["pass_rate"] is None


def test_nemo_gym_rows_hold_the_request_and_the_expected_answer(exported):
    [row] = exported([], [RIGHT], questions=1, format="nemo_gym")
    assert row["responses_create_params"] == {"input": user()}
    assert (row["question"], row["expected_answer"]) == ("Question 0?", "4")
    assert row["id"] == row["verifier_metadata"]["id"]


def test_verifiers_rows_hold_prompt_answer_and_info(exported):
    [row] = exported([], [RIGHT], questions=1, format="verifiers")
    assert (row["prompt"], row["answer"], row["task"]) == (user(), "4", "math")
    assert row["info"]["teacher"] == "t"


@pytest.mark.parametrize("format", ["verl", "nemo_gym", "verifiers"])
def test_rl_prompt_without_reference_or_twice_is_refused(exported, format):
    with pytest.raises(ExportError, match=r"share theirs.*take"):
        exported([], [RIGHT, WRONG], format=format)
    with pytest.raises(ExportError, match="no_reference"):
        exported([], [RIGHT], reference=None, format=format)


def test_preference_pairs_stand_side_by_side(exported):
    steps = [*PAIR, "keep: {where: {pair: [chosen, rejected]}}"]
    rows = exported(steps, [RIGHT, LONG, WRONG], format="preference")
    assert len(rows) == 3
    for number, row in enumerate(sorted(rows, key=lambda row: row["prompt"][0]["content"])):
        assert row["prompt"] == user(number)
        assert "I add.\n" in row["chosen"][0]["content"]
        assert "add again" in row["rejected"][0]["content"]


def test_preference_with_a_row_that_is_no_pair_is_refused(exported):
    with pytest.raises(ExportError, match="keep"):
        exported(PAIR, [RIGHT, LONG, WRONG], format="preference")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("{format: preference}", "pair"),
        ("{format: preference, think: field}", "think"),
        ("{format: verl2}", "format"),
    ],
)
def test_recipe_that_does_not_fit_a_target_is_refused_at_load(fields, words):
    steps = "[{source: {shipped: word_problems}}, {answer: {draws: 1}}]"
    text = (
        f"name: a\nmodels: {{teacher: {{name: t}}}}\ndomains: {{math: {steps}}}\nexport: {fields}\n"
    )
    with pytest.raises(RecipeError, match=words):
        read_recipe(text)


def test_trl_reads_preference(exported):
    trl = pytest.importorskip("trl.data_utils")
    steps = [*PAIR, "keep: {where: {pair: [chosen, rejected]}}"]
    assert all(map(trl.is_conversational, exported(steps, [RIGHT, LONG], format="preference")))


def test_trl_reads_completion(exported):
    trl = pytest.importorskip("trl.data_utils")
    assert all(map(trl.is_conversational, exported([], [RIGHT], format="completion")))
