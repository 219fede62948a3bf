"""The training loop learns, is deterministic, masks and packs right; models go to disk and back."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from stillroom.train.batches import BUCKETS, Draw, TokenRow, _pack, collate  # noqa: E402
from stillroom.train.ensemble import train_together  # noqa: E402
from stillroom.train.loop import TrainSettings, fastest_dtype, loss_of, train  # noqa: E402
from stillroom.train.model import (  # noqa: E402
    Cache,
    ModelConfig,
    Qwen2,
    load_model,
    save_weights,
)
from stillroom.train.sample import sample  # noqa: E402

SMALL = ModelConfig(32, 32, 64, 2, 2, max_position_embeddings=128)
END = 31


def small(seed: int = 0) -> Qwen2:
    model = Qwen2(SMALL)
    model.initialise(seed)
    return model


def counting_rows() -> list[TokenRow]:
    """Prompt: a number; completion: the next three numbers and the end."""
    rows = []
    for first in range(20):
        rows.append(TokenRow([30, first, 29, first + 1, first + 2, first + 3, END], 3))
    return rows


def logits_of(model: Qwen2, tokens: list[int]) -> torch.Tensor:
    n = len(tokens)
    bias = torch.full((1, 1, n, n), -1e4).triu(1)
    with torch.no_grad():
        return model(torch.tensor([tokens]), torch.arange(n)[None], bias)[0]


SETTINGS = TrainSettings(
    steps=100, tokens_per_step=192, muon_lr=0.01, adam_lr=0.01, dtype="float32", seed=0
)


@pytest.fixture(scope="module")
def trained():
    model = small()
    return model, train(model, counting_rows(), SETTINGS)


def test_loop_learns_to_count_and_sampler_writes_it(trained) -> None:
    model, record = trained
    assert record.losses[0] > 2
    assert record.losses[-1] < 0.1
    prompts = [[30, first, 29] for first in (3, 11, 17)]
    draws = sample(
        model, prompts, end=END, max_tokens=8, temperature=0.0, seed=0, batch=2, dtype="float32"
    )
    assert [draw.tokens for draw in draws] == [[4, 5, 6], [12, 13, 14], [18, 19, 20]]
    assert all(draw.ended for draw in draws)


def test_record_counts_what_was_trained_on(trained) -> None:
    _, record = trained
    assert record.steps == 100
    assert record.dtype == "float32"
    assert record.tokens == record.rows * 7
    assert record.padded_tokens == 100 * 192
    assert len(record.losses) >= 100
    assert record.cpu_s > 0


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    weights = []
    for seed in (1, 1, 2):
        model = small()
        few = TrainSettings(steps=5, tokens_per_step=128, dtype="float32", seed=seed)
        train(model, counting_rows(), few)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_prompt_tokens_are_not_learnt() -> None:
    """A completion that never varies is learnt to nothing, whatever the prompts are."""
    rows = [TokenRow([(7 * n) % 29, (11 * n) % 29, 29, 1, END], 3) for n in range(29)]
    few = replace(SETTINGS, steps=40, tokens_per_step=128)
    assert train(small(), rows, few).losses[-1] < 0.05


def test_rows_packed_on_one_line_do_not_see_each_other() -> None:
    rows = [TokenRow([30, n, 29, n + 1, END], 3) for n in range(6)]
    ((length, line),) = _pack(rows)
    assert length == BUCKETS[0]
    batch = collate(Draw([line], length))
    model = small()
    with torch.no_grad():
        together = model(batch.tokens[0], batch.positions[0], batch.bias[0])[0]
    at = 0
    for row in line:
        alone = logits_of(model, list(row.tokens[:-1]))
        assert torch.allclose(together[at : at + len(alone)], alone, atol=1e-5)
        learnt = batch.targets[0, 0, at : at + len(alone)].tolist()
        assert learnt == [-100, -100, row.tokens[3], END]
        at += len(alone)
    assert len(line) == 6


@pytest.mark.parametrize("together", [False, True])
def test_rows_that_training_ends_before_are_not_counted_as_learnt(together: bool) -> None:
    rows = [TokenRow([30, 1, 29, *[5] * 60, END], 3) for _ in range(40)]  # a line each
    few = TrainSettings(steps=3, tokens_per_step=256)
    once = TrainSettings(steps=10, tokens_per_step=256)
    records = []
    for settings in (few, once):
        model = small()
        if together:
            records += train_together([model], [rows], [settings])
        else:
            records.append(train(model, rows, settings))
    assert (records[0].rows, records[0].distinct) == (12, 12)
    # An epoch holds every row once: nothing is seen twice before the rest is seen.
    assert (records[1].rows, records[1].distinct) == (40, 40)


def test_loss_equals_that_of_torch() -> None:
    batch = collate(Draw([counting_rows()[:3], counting_rows()[3:5]], 64))
    model = small()
    mine = loss_of(model, batch)
    torch.autograd.backward(mine)
    grad = model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    logits = model(batch.tokens[0], batch.positions[0], batch.bias[0]).flatten(0, 1)
    theirs = torch.nn.functional.cross_entropy(logits, batch.targets.flatten())
    torch.autograd.backward(theirs)
    assert math.isclose(float(mine.detach()), float(theirs.detach()), rel_tol=1e-5)
    assert torch.allclose(grad, model.embed_tokens.weight.grad, atol=1e-6)


def test_cached_steps_equal_one_pass() -> None:
    model, tokens = small(), [30, 4, 29, 5, 6, 7, 8]
    whole = logits_of(model, tokens)
    cache = Cache(SMALL, rows=1, room=8, dtype=torch.float32)
    with torch.no_grad():
        for at, token in enumerate(tokens):
            bias = torch.full((1, 1, 1, 8), -1e4)
            bias[..., : at + 1] = 0.0
            step = model(torch.tensor([[token]]), torch.tensor([[at]]), bias, cache)
            assert torch.allclose(step[0, 0], whole[at], atol=1e-5)


def test_model_survives_the_way_to_disk(tmp_path) -> None:
    model = small()
    save_weights(model, tmp_path / "model.safetensors", dtype=torch.float32)
    config = SMALL.to_json(bos_token_id=None, eos_token_id=END, pad_token_id=0)
    (tmp_path / "config.json").write_text(config)
    again = load_model(tmp_path)
    assert torch.equal(logits_of(model, [1, 2, 3]), logits_of(again, [1, 2, 3]))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"model_type": "gpt2"}, "gpt2"), ({"hidden_size": 64}, "do not fit")],
)
def test_load_refuses_what_it_cannot_run(tmp_path, change, message) -> None:
    save_weights(small(), tmp_path / "model.safetensors")
    config = json.loads(SMALL.to_json(bos_token_id=None, eos_token_id=END, pad_token_id=0))
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_train_refuses_no_rows_too_long_rows_and_rows_that_run_dry() -> None:
    with pytest.raises(ValueError, match="no rows"):
        train(small(), [], SETTINGS)
    with pytest.raises(ValueError, match="1100 tokens"):
        train(small(), [TokenRow([1] * 1100, 5)], SETTINGS)
    with pytest.raises(ValueError, match="ran dry at step 0"):
        train(small(), iter(counting_rows()[:2]), SETTINGS)


def test_sampler_refuses_prompts_that_leave_no_room() -> None:
    with pytest.raises(ValueError, match="28"):
        sample(small(), [[1] * 50], end=END, max_tokens=100, temperature=0.0, seed=0)


def test_sampler_repeats_itself_for_a_seed(trained) -> None:
    model, _ = trained
    prompts = [[30, n, 29] for n in range(10)]

    def draw(seed: int) -> list[list[int]]:
        found = sample(
            model, prompts, end=END, max_tokens=8, temperature=3.0, seed=seed, dtype="float32"
        )
        return [one.tokens for one in found]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_working_type_is_that_which_the_device_multiplies(monkeypatch) -> None:
    for able, kind in (
        ({"avx512_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, "float32"),
        ({"bf16": True, "neon": True}, "bfloat16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert fastest_dtype() == kind
    for able, kind in ((True, "bfloat16"), (False, "float32")):
        # Emulation is no ability: Turing says yes to it.
        def supported(including_emulation, able=able):
            return able or including_emulation

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        assert fastest_dtype("cuda:1") == kind


def test_students_of_one_process_are_those_of_processes_of_their_own() -> None:
    """Each with its own rows, of lengths that share a batch's shape or do not."""
    few = replace(SETTINGS, steps=12, tokens_per_step=128)
    rows = [counting_rows(), counting_rows()[:7], long_rows(), long_rows() + counting_rows()]
    seeds = [replace(few, seed=seed) for seed in (0, 1, 1, 3)]
    alone = [small(seed) for seed in range(4)]
    records = [train(*given) for given in zip(alone, rows, seeds, strict=True)]
    together = [small(seed) for seed in range(4)]
    found = train_together(together, rows, seeds)
    for one, other, record, same in zip(alone, together, records, found, strict=True):
        for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
            # Muon, which turns by bfloat16, makes more of what float32 rounds.
            assert torch.allclose(p, q, atol=1e-2), name
        assert (record.tokens, record.rows, record.steps) == (same.tokens, same.rows, same.steps)
        assert same.losses == pytest.approx(record.losses, abs=2e-3)
    assert not torch.equal(together[0].embed_tokens.weight, together[1].embed_tokens.weight)


def long_rows() -> list[TokenRow]:
    return [TokenRow([30, n, *[n % 5, 7] * 40, END], 2) for n in range(9)]


def test_students_of_one_process_share_settings_and_shape() -> None:
    rows, few = counting_rows(), replace(SETTINGS, steps=1)
    with pytest.raises(ValueError, match="settings differ; expected the same for all"):
        train_together([small(), small()], [rows, rows], [few, replace(few, steps=2)])
    other = Qwen2(replace(SMALL, num_hidden_layers=1))
    with pytest.raises(ValueError, match="models differ in shape"):
        train_together([small(), other], [rows, rows], [few, few])
    with pytest.raises(ValueError, match="no rows to train on"):
        train_together([small(), small()], [rows, []], [few, few])


def test_importing_stillroom_and_families_does_not_import_torch() -> None:
    code = (
        "import sys, stillroom, stillroom.families, stillroom.train; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_export_loads_in_transformers_with_equal_logits(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    model = small()
    save_weights(model, tmp_path / "model.safetensors", dtype=torch.float32)
    config = SMALL.to_json(bos_token_id=None, eos_token_id=END, pad_token_id=0)
    (tmp_path / "config.json").write_text(config)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = [30, 4, 29, 5, 6, 7, 8, 9, 2, 3]
    with torch.no_grad():
        other = theirs(torch.tensor([tokens])).logits[0]
    assert torch.allclose(logits_of(model, tokens), other, atol=1e-5)
