"""Datasets read by the code of the programs that they are for, where these are installed.

None of them is needed to work on this project: `docs/exports.md` says with which versions these
tests passed, and what was read in another way.
"""

import importlib.resources
import json

import datasets
import pytest
from datasets import load_dataset
from tests.kitchen import cook
from tests.tables import story_of

from stillroom.steps.export.export import Export, write_dataset

EMBEDDED = str(importlib.resources.files("stillroom.models.embedded") / "teacher-1")
RIGHT = ("I add.", r"It is \boxed{4}.")
LONG = ("I add, and add again.", r"It is \boxed{4}.")
WRONG = ("I guess.", r"It is \boxed{5}.")
PAIR = ["verify: math", "label: {pair: {chosen: shortest correct, rejected: longest correct}}"]
RATES = ["verify: math", "label: pass_rate", "take: {n: 1, per: question_id}"]
LEARNED = "<think>\nI add.\n</think>\n\nIt is \\boxed{4}."


@pytest.fixture
def exported(tmp_path):
    datasets.disable_progress_bars()

    def export(steps, texts, **fields):
        table, _ = cook(tmp_path, steps, texts, questions=3, reference="4")
        tables = {"math": table}
        write_dataset(
            tmp_path / "out",
            name="made",
            recipe_text="name: made\n",
            tables=tables,
            story=story_of(tables),
            export=Export(**fields),
        )
        return tmp_path / "out"

    return export


@pytest.fixture
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(EMBEDDED)


def rows(folder, tmp_path):
    return load_dataset(str(folder), cache_dir=str(tmp_path / "hf"))["train"]


def test_verl_loads_prompts_and_keeps_what_its_reward_needs(exported, tokenizer, tmp_path):
    module = pytest.importorskip("verl.utils.dataset.rl_dataset")
    omegaconf = pytest.importorskip("omegaconf")
    folder = exported(RATES, [RIGHT, WRONG], format="verl")
    (file,) = folder.rglob("*.parquet")
    config = {"cache_dir": str(tmp_path / "verl"), "max_prompt_length": 64}
    found = module.RLHFDataset(str(file), tokenizer, omegaconf.OmegaConf.create(config))
    assert len(found) == 3
    row = found[0]
    assert [message["content"] for message in row["raw_prompt"]] == ["Question 0?"]
    assert row["reward_model"]["ground_truth"] == "4"
    assert row["extra_info"]["pass_rate"] == 0.5


def test_verifiers_takes_prompts_as_the_dataset_of_an_environment(exported, tmp_path):
    module = pytest.importorskip("verifiers.envs.singleturn_env")
    rubrics = pytest.importorskip("verifiers.rubrics.rubric")
    found = rows(exported(RATES, [RIGHT, WRONG], format="verifiers"), tmp_path)
    environment = module.SingleTurnEnv(dataset=found, rubric=rubrics.Rubric())
    row = environment.get_dataset()[0]
    assert row["prompt"] == [{"role": "user", "content": "Question 0?"}]
    assert (row["answer"], row["info"]["pass_rate"]) == ("4", 0.5)


def test_llamafactory_converts_conversations(exported, tmp_path):
    converter = pytest.importorskip("llamafactory.data.converter")
    parser = pytest.importorskip("llamafactory.data.parser")
    hparams = pytest.importorskip("llamafactory.hparams")
    found = rows(exported([], [RIGHT], format="sharegpt"), tmp_path)
    attributes = parser.DatasetAttr("file", "made", formatting="sharegpt")
    convert = converter.get_dataset_converter("sharegpt", attributes, hparams.DataArguments())
    row = convert(found[0])
    assert row["_prompt"] == [{"role": "user", "content": "Question 0?"}]
    assert row["_response"] == [{"role": "assistant", "content": LEARNED}]


@pytest.mark.parametrize(
    ("format", "field"), [("messages", "messages"), ("sharegpt", "conversations")]
)
def test_axolotl_learns_the_completion_alone(exported, tokenizer, tmp_path, format, field):
    module = pytest.importorskip("axolotl.prompt_strategies.chat_template")
    dicts = pytest.importorskip("axolotl.utils.dict")
    found = rows(exported([], [RIGHT], format=format), tmp_path)
    names = {"role": "role", "content": "content"}
    if format == "sharegpt":
        names = {"role": "from", "content": "value"}
    options = {
        "chat_template": "tokenizer_default",
        "field_messages": field,
        "message_property_mappings": names,
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
    settings = dicts.DictDefault({"train_on_inputs": False, "sequence_len": 512, "datasets": []})
    strategy = module.load(tokenizer, settings, dicts.DictDefault(options))
    row = strategy.tokenize_prompt(dict(found[0]))
    learned = [token for token in row["labels"] if token != -100]
    assert tokenizer.decode(learned).strip() == f"{LEARNED}<|im_end|>"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of its own settings
def test_trl_tokenizes_preference_pairs(exported, tokenizer, tmp_path):
    trl = pytest.importorskip("trl")
    found = rows(exported(PAIR, [RIGHT, LONG], format="preference"), tmp_path)
    trainer = object.__new__(trl.DPOTrainer)  # a trainer without a model
    options = trl.DPOConfig(output_dir=str(tmp_path / "dpo"), max_length=512, use_cpu=True)
    made = trainer._prepare_dataset(found, tokenizer, options, "train")
    row = made[0]
    assert tokenizer.decode(row["prompt_ids"]).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(row["chosen_ids"]) == f"{LEARNED}<|im_end|>\n"
    assert "add again" in tokenizer.decode(row["rejected_ids"])


def test_trl_tokenizes_steps_with_their_labels(tokenizer):
    trainer = pytest.importorskip("trl.trainer.prm_trainer").PRMTrainer
    row = {"prompt": "2 + 2?", "completions": ["I add.", "It is 5."], "labels": [True, False]}
    made = trainer.tokenize_row(
        row, tokenizer, step_separator="\n", max_length=128, max_prompt_length=None,
        max_completion_length=None, train_on_last_step_only=False, is_eval=False,
    )  # fmt: skip
    assert [label for label in made["labels"] if label != -100] == [1, 0]


def test_nemo_gym_takes_rows_as_requests_of_its_servers(exported, tmp_path):
    base = pytest.importorskip("nemo_gym.base_resources_server")
    folder = exported(RATES, [RIGHT, WRONG], format="nemo_gym")
    (file,) = folder.rglob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        asked = base.BaseRunRequest.model_validate(line)
        assert asked.responses_create_params.input[0].content.startswith("Question")
