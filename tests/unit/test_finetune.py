"""Settings of fine-tuning, published presets, and the student's form."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stillroom.train.elsewhere import LlamaFactorySettings
from stillroom.train.finetune import Finetune, complete, presets
from stillroom.train.trainer import Pinned, Student, TrainingFailed, base_content, student_key
from stillroom.train.trainers import TRAINERS

FULL = {"learning_rate": 1e-5, "global_batch": 8, "epochs": 1, "max_length": 64}
PAPER = {  # learning rate, batch, epochs, packing: arXiv 2506.04178, table of hyper-parameters
    "openthoughts-micro": (1e-5, 32, 13, False),
    "openthoughts-1k": (2e-5, 96, 11, False),
    "openthoughts-small": (2e-5, 96, 7, False),
    "openthoughts-ablation": (4e-5, 128, 5, False),
    "openthinker3-7b": (8e-5, 512, 5, True),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_presets_hold_its_numbers(name):
    settings = complete(Finetune, name, {})
    found = (settings.learning_rate, settings.global_batch, settings.epochs, settings.packing)
    assert found == PAPER[name]
    assert settings.max_length == 16384
    assert (settings.schedule, settings.warmup_ratio, settings.weight_decay) == ("cosine", 0.1, 0)
    assert (settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert settings.max_grad_norm is None  # not on record
    assert settings.checkpoint_steps == (500 if name == "openthinker3-7b" else None)


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_whole_or_says_what_it_leaves_open(name):
    open_settings = {n: v for n, v in FULL.items() if n not in presets()[name]}
    for missing in open_settings:
        rest = {n: v for n, v in open_settings.items() if n != missing}
        with pytest.raises(ValueError, match=f"{missing} is not set: preset {name} leaves it open"):
            complete(Finetune, name, rest)
    settings = TRAINERS["trl"].settings(name, open_settings)
    assert settings["learning_rate"] == presets()[name]["learning_rate"]
    assert None not in settings.values()
    changed = TRAINERS["trl"].settings(name, {**open_settings, "learning_rate": 0.5})
    assert {n for n in settings if settings[n] != changed[n]} == {"learning_rate"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rate": 1}, "rate is no setting; expected one of method, learning_rate"),
        ({"learning_rate": 2}, "learning_rate is 2; expected less than or equal to 1"),
        ({"epochs": 0}, "epochs is 0; expected greater than 0"),
        ({"global_batch": True}, "global_batch is True; expected a number or a word"),
        ({"max_length": 1.5}, "max_length is 1.5; expected a valid integer"),
        ({"schedule": "steep"}, "schedule is 'steep'; expected 'cosine', 'linear' or 'constant'"),
        ({"method": "lora"}, "method is lora; expected lora_rank and lora_alpha too"),
        ({"lora_rank": 8}, "lora_rank is given, but method is full"),
    ],
)
def test_settings_are_checked_by_name(more, words):
    with pytest.raises(ValueError, match=words):
        complete(Finetune, None, {**FULL, **more})


def test_without_a_preset_what_has_no_default_must_be_given():
    for name in FULL:
        given = {n: v for n, v in FULL.items() if n != name}
        with pytest.raises(ValueError, match=f"{name} is not set: there is no preset"):
            complete(Finetune, None, given)
    with pytest.raises(ValueError, match="preset is 'x'; expected one of openthoughts-micro"):
        complete(Finetune, "x", FULL)
    # YAML reads 1e-5, without a point, as a word.
    assert complete(Finetune, None, {**FULL, "learning_rate": "1e-5"}).learning_rate == 1e-5


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 64))
def test_accumulation_gives_exactly_the_global_batch(each, devices, times):
    batch = {"global_batch": each * devices * times, "per_device_batch": each}
    assert complete(Finetune, None, {**FULL, **batch}).accumulation(devices) == times
    uneven = complete(Finetune, None, {**FULL, **batch, "global_batch": each * devices * times + 1})
    if each * devices > 1:
        with pytest.raises(TrainingFailed, match="expected a multiple of"):
            uneven.accumulation(devices)


def test_a_pinned_base_is_named_by_its_commit():
    one, other = Pinned("a/b", "0" * 40), Pinned("a/b", "1" * 40)
    bases = (one, other, Pinned("a/c", "0" * 40))
    keys = {student_key("trl", 1, FULL, base_content(base), "rows", 0) for base in bases}
    assert len(keys) == 3
    assert student_key("trl", 1, FULL, base_content(one), "rows", 0) in keys
    with pytest.raises(ValidationError, match="revision"):
        Student(model="a/b", revision="main")


def test_only_full_fine_tuning_by_other_programs():
    lora = {**FULL, "method": "lora", "lora_rank": 4, "lora_alpha": 8}
    for name in ("llamafactory", "axolotl"):
        with pytest.raises(ValueError, match=r"method is 'lora'; expected full\. Use trainer trl"):
            TRAINERS[name].settings(None, lora)
    assert TRAINERS["trl"].settings(None, lora)["lora_rank"] == 4
    assert "template" not in TRAINERS["llamafactory"].settings(None, FULL)
    named = TRAINERS["llamafactory"].settings(None, {**FULL, "template": "qwen"})
    assert named["template"] == "qwen"
    with pytest.raises(ValueError, match="template is no setting"):
        TRAINERS["axolotl"].settings(None, {**FULL, "template": "qwen"})


def test_the_page_of_trainers_names_every_trainer_preset_and_setting():
    page = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text("utf-8")
    for name in (*TRAINERS, *presets(), *LlamaFactorySettings.model_fields):
        assert f"`{name}`" in page
