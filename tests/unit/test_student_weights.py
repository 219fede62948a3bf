"""Models that programs leave: their weights in the base's type, and all else as the base has it."""

import json
import math

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from stillroom.train.trainer import TrainingFailed  # noqa: E402
from stillroom.train.weights import take_student  # noqa: E402
from tiny_checkpoints import write_checkpoint  # noqa: E402


@pytest.fixture
def base(tmp_path):
    return write_checkpoint(tmp_path / "base", dtype="BF16", torch_dtype="bfloat16")


@pytest.fixture
def left(tmp_path, base):
    """What LLaMA-Factory and axolotl were seen to leave of a base in bfloat16."""
    out = tmp_path / "out"
    out.mkdir()
    weights = {name: value.float() * 1.01 for name, value in load_file(weights_of(base)).items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, weights_of(out))
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (out / name).write_text('{"dtype": "float32", "eos_token": "<other>"}')
    (out / "tokenizer.json").write_text("{}")
    (out / "chat_template.jinja").write_text("another template")
    return out


def weights_of(folder):
    return folder / "model.safetensors"


def change(out, **given):
    weights = load_file(weights_of(out))
    for name, value in given.items():
        weights.pop(name) if value is None else weights.update({name: value})
    save_file(weights, weights_of(out))


NORM = "model.norm.weight"


def test_a_student_has_the_type_and_the_words_of_its_base(tmp_path, base, left):
    take_student(left, base, tmp_path / "model")
    found, wanted = load_file(weights_of(tmp_path / "model")), load_file(weights_of(left))
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    assert all(torch.equal(found[name], wanted[name].bfloat16()) for name in wanted)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {path.name for path in base.iterdir()}
    for name in names - {"model.safetensors"}:
        assert (tmp_path / "model" / name).read_bytes() == (base / name).read_bytes()


def test_shards_stay_shards_and_stray_files_are_left(tmp_path, base, left):
    weights = load_file(weights_of(left))
    first = {NORM: weights.pop(NORM)}
    save_file(first, left / "model-00001-of-00002.safetensors")
    save_file(weights, left / "model-00002-of-00002.safetensors")
    places = dict.fromkeys(weights, "model-00002-of-00002.safetensors")
    places[NORM] = "model-00001-of-00002.safetensors"
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (left / "model.safetensors.index.json").write_text(json.dumps(index))
    take_student(left, base, tmp_path / "model")
    told = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert told["weight_map"] == places
    sizes = sum(2 * value.numel() for value in {**first, **weights}.values())
    assert told["metadata"]["total_size"] == sizes
    # An index names what counts; the one file beside it is of another save.
    assert not weights_of(tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (NORM, torch.zeros(0), r"tensor model.norm.weight is \(0,\); expected \(48,\), as in the"),
        (NORM, None, "tensor model.norm.weight is missing; expected .48"),
        (NORM, torch.full((48,), math.nan), "model.norm.weight holds NaN or infinity; lower"),
    ],
)
def test_weights_that_are_not_whole_are_refused(tmp_path, base, left, name, value, words):
    change(left, **{name: value})
    with pytest.raises(TrainingFailed, match=words):
        take_student(left, base, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_head_may_be_missing_only_where_it_is_tied(tmp_path, left):
    tied = write_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    free = write_checkpoint(tmp_path / "free", tie_word_embeddings=False)
    change(left, **{"lm_head.weight": None})
    take_student(left, tied, tmp_path / "model")
    with pytest.raises(TrainingFailed, match=r"tensor lm_head.weight is missing"):
        take_student(left, free, tmp_path / "model")
