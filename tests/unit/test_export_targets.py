"""Datasets in the forms that other programs read, and read by those that are at hand."""

import importlib.resources
import json

import datasets
import pytest
from datasets import load_dataset
from tests.kitchen import Kitchen, cook
from tests.tables import story_of

from stillroom.errors import ExportError, RecipeError
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.local import LocalModel
from stillroom.recipe.load import read_recipe
from stillroom.steps.export.export import Export, write_dataset
from stillroom.text.think import split_thinking

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


EMBEDDED = importlib.resources.files("stillroom.models.embedded") / "teacher-1"


@pytest.fixture(scope="module")
def real_answers():
    """What the embedded teacher says to the questions that `exported` asks, and to a sum."""
    model = LocalModel(EMBEDDED, name="teacher-1", threads=1)
    system = Message("system", "Think carefully, digit by digit.")
    requests = [
        Request("teacher-1", (system, Message("user", words)), Sampling(0.0, None, 256))
        for words in ("What is 17 + 25?", "Question 0?")
    ]
    replies = dict(model.complete(requests))
    found = [replies[request] for request in requests]
    assert all(isinstance(reply, Completion) and reply.reasoning for reply in found)
    return [(reply.reasoning, reply.answer) for reply in found]


def test_loss_mask_by_the_chat_template_covers_a_real_completion_alone(exported, real_answers):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(EMBEDDED))
    rows = exported([], real_answers, format="completion", questions=1)
    assert len(rows) == len(real_answers)
    for row in rows:
        before = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        whole = tokenizer.apply_chat_template(
            row["prompt"] + row["completion"], tokenize=True, return_dict=False
        )
        assert whole[: len(before)] == before  # so that the mask can be cut by its length
        [message] = row["completion"]
        learned = tokenizer.decode(whole[len(before) :], skip_special_tokens=False)
        assert learned == f"{message['content']}<|im_end|>\n"
        split = split_thinking(learned.removesuffix("<|im_end|>\n"))
        assert (split.reasoning, split.answer) in real_answers


def test_trl_masks_the_prompt_of_real_rows(exported, real_answers):
    trl = pytest.importorskip("trl.data_utils")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(EMBEDDED))
    for row in exported([], real_answers, format="completion", questions=1):
        texts = trl.apply_chat_template({k: row[k] for k in ("prompt", "completion")}, tokenizer)
        assert texts["prompt"].endswith("<|im_start|>assistant\n")
        assert texts["completion"] == row["completion"][0]["content"] + "<|im_end|>\n"


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


def test_nemo_gym_rows_hold_the_request_and_what_its_maths_server_asks_for(exported, tmp_path):
    steps = ["verify: math", "label: pass_rate", ONE]
    [row] = exported(steps, [RIGHT, WRONG], questions=1, format="nemo_gym")
    # https://docs.nvidia.com/nemo/gym/latest/data/prepare-validate.html
    assert row["responses_create_params"] == {"input": user()}
    assert (row["question"], row["expected_answer"]) == ("Question 0?", "4")
    assert (row["pass_rate"], row["pass_rate_total"], row["pass_rate_passed"]) == (0.5, 2, 1)
    assert row["id"] == row["verifier_metadata"]["id"]
    [file] = (tmp_path / "out" / "data").iterdir()
    assert file.name == "train-00000-of-00001.jsonl"
    [line] = file.read_text().splitlines()
    assert json.loads(line)["responses_create_params"] == {"input": user()}


def test_verifiers_rows_hold_prompt_answer_and_info(exported):
    [row] = exported([], [RIGHT], questions=1, format="verifiers")
    assert (row["prompt"], row["answer"], row["task"]) == (user(), "4", "math")
    assert row["info"]["teacher"] == "t"
    assert row["info"]["verifier"] is None


@pytest.mark.parametrize(
    ("format", "beside"),
    [("verl", "extra_info"), ("nemo_gym", "verifier_metadata"), ("verifiers", "info")],
)
def test_rl_prompt_names_the_verifier_with_its_version_and_every_rate(exported, format, beside):
    steps = ["verify: math", "label: pass_rate", ONE]
    row = exported(steps, [RIGHT, WRONG, RIGHT, RIGHT], questions=1, format=format)[0]
    info = row[beside]
    assert info["verifier"].startswith("math/")
    assert "math-verify" in info["verifier"]
    assert (info["pass_rate"], info["draws_decided"], info["draws_correct"]) == (0.75, 4, 3)
    assert info["pass_rate_low"] < 0.75 < info["pass_rate_high"]


STDIO = {"kind": "stdio", "entries": [{"stdin": "1 2\n", "stdout": "3\n"}]}
CALLS = {
    "kind": "calls",
    "function": "Solution.add",
    "entries": [{"args": [1, [2]], "expected": {"sum": 3}}],
}
ASSERTS = {"kind": "asserts", "entries": ["assert add(1, 2) == 3"]}


@pytest.fixture
def program(tmp_path):
    """Export one question that asks for a program, in a recipe of two domains."""
    datasets.disable_progress_bars()

    def export(tests, format):
        file = tmp_path / "code.jsonl"
        file.write_text(json.dumps({"question": "Add!", "tests": tests, "solve_rate_b": 0.25}))
        columns = "columns: {solve_rate_b: number}, tests: {column: tests, kind: json}"
        (tmp_path / "math.jsonl").write_text('{"question": "One?", "reference": "1"}\n')
        tables = Kitchen(tmp_path / "store").run(
            f"name: test\ndomains:\n  code: [source: {{file: {file}, {columns}}}]\n"
            f"  math: [source: {{file: {tmp_path / 'math.jsonl'}}}]\n"
        )
        write_dataset(
            tmp_path / "out", name="made", recipe_text="", tables=tables,
            story=story_of(tables), export=Export(format=format),
        )  # fmt: skip
        return load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))["train"]

    return export


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (STDIO, {"inputs": ["1 2\n"], "outputs": ["3\n"], "fn_name": None}),
        (CALLS, {"inputs": ["1\n[2]"], "outputs": ['{"sum": 3}'], "fn_name": "add"}),
    ],
)
def test_rl_prompt_of_a_program_carries_its_tests(program, tests, expected):
    code, maths = program(tests, "verl")
    assert json.loads(code["reward_model"]["ground_truth"]) == expected
    assert json.loads(code["extra_info"]["tests"]) == tests
    assert maths["reward_model"]["ground_truth"] == "1"
    assert maths["extra_info"]["tests"] is None
    assert (code["extra_info"]["solve_rate_b"], maths["extra_info"]["solve_rate_b"]) == (0.25, None)


def test_nemo_gym_code_server_finds_its_unit_tests(program):
    code, maths = program(STDIO, "nemo_gym")
    assert code["verifier_metadata"]["unit_tests"] == {
        "inputs": ["1 2\n"], "outputs": ["3\n"], "fn_name": None,
    }  # fmt: skip
    assert maths["verifier_metadata"]["unit_tests"] is None
    assert maths["expected_answer"] == "1"


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (ASSERTS, "kind asserts"),
        (STDIO | {"tolerance": 0.1}, "a tolerance"),
        (STDIO | {"language": "cpp"}, "cpp programs"),
        (CALLS | {"function": "Sum.add"}, "a method of Sum"),
        (CALLS | {"setup": "import math"}, "a setup"),
        (CALLS | {"entries": [{"kwargs": {"a": 1}, "expected": 1}]}, "arguments by name"),
    ],
)
def test_tests_that_a_program_cannot_run_are_refused_or_carried_as_they_are(program, tests, words):
    for format in ("verl", "nemo_gym"):
        with pytest.raises(ExportError, match=f"{words}.*format: verifiers"):
            program(tests, format)
    assert json.loads(program(tests, "verifiers")[0]["info"]["tests"]) == tests


STEPS = ("I add 2.\n\n\nI add 2 more.\nThat is 4.", "So:\n \nit is 4.")


@pytest.fixture
def stepped(tmp_path):
    """Export an answer of four paragraphs with these labels of steps."""
    datasets.disable_progress_bars()

    def export(labels, **fields):
        file = tmp_path / "q.jsonl"
        file.write_text(json.dumps({"question": "Question 0?", "step_labels": labels}))
        table, _ = cook(tmp_path, [], [STEPS], source=f"{{file: {file}, columns: [step_labels]}}")
        write_dataset(
            tmp_path / "out", name="made", recipe_text="", tables={"math": table},
            story=story_of({"math": table}), export=Export(format="stepwise", **fields),
        )  # fmt: skip
        return load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))["train"]

    return export


def test_stepwise_rows_have_a_label_for_each_paragraph(stepped):
    assert stepped("[true, true, false, true]")[0] == {
        "prompt": "Question 0?",
        "completions": ["I add 2.", "I add 2 more.\nThat is 4.", "So:", "it is 4."],
        "labels": [True, True, False, True],
    }
    assert stepped("[true, false]", think="none")[0]["completions"] == ["So:", "it is 4."]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("[true]", "4 steps, but 1 step_labels"),
        ("[1, 0, 1, 1]", "true and false"),
        ("good", "true and false"),
        (None, "None.*keep"),
    ],
)
def test_stepwise_without_a_label_for_each_step_is_refused(stepped, labels, words):
    with pytest.raises(ExportError, match=words):
        stepped(labels)


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
        ("{format: stepwise}", "step_labels"),
        ("{format: stepwise, system: true}", "system"),
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
