"""Many students in one process: on one device, in few operations, none at the cost of another."""

import math
import shutil
from itertools import islice
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from stillroom.train import ensemble, proxy  # noqa: E402
from stillroom.train.batches import BUCKETS, IGNORED, TokenRow, collate, draws  # noqa: E402
from stillroom.train.ensemble import Lessons, Students, train_together  # noqa: E402
from stillroom.train.loop import TrainSettings, cross_entropy, loss_of  # noqa: E402
from stillroom.train.model import ModelConfig, Qwen2  # noqa: E402
from stillroom.train.proxy import Proxy  # noqa: E402
from stillroom.train.stacked import stacked_logits  # noqa: E402
from stillroom.train.trainer import Job, Trained, TrainingFailed  # noqa: E402

BASE = Path(__file__).parents[2] / "src/stillroom/models/embedded/base-1"
SMALL = ModelConfig(32, 12, 20, 2, 3, max_position_embeddings=256)
SETTINGS = TrainSettings(4, tokens_per_step=300, decay="linear", dtype="bfloat16")


def small(seed: int = 0) -> Qwen2:
    model = Qwen2(SMALL)
    model.initialise(seed)
    return model


def rows_of(*sizes: int) -> list[TokenRow]:
    return [
        TokenRow([n % 32, *[(n * i) % 32 for i in range(size)]], 2) for n, size in enumerate(sizes)
    ]


UNEVEN = [rows_of(*[9] * 50), rows_of(*[70, 30, 100] * 9), rows_of(*[200, 20] * 6)]


class OneDevice(TorchDispatchMode):
    """Notes copies between host and device, and what makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.copies, self.waits = 0, 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)]
        name = operation.overloadpacket.__name__
        self.operations += 1
        self.copies += len({tensor.device for tensor in tensors}) > 1
        self.waits += name in (
            "_local_scalar_dense",
            "nonzero",
            "equal",
            "masked_select",
            "_unique2",
        )
        return found


class Reads(TorchFunctionMode):
    """Counts what reads the values of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy", "cpu"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def test_steps_stay_on_the_device_and_never_wait_for_it():
    """On torch's device without values: what mixes it with the host, or reads it, fails there."""
    students = Students([small(seed) for seed in range(3)], SETTINGS, "bfloat16", "meta")
    lessons = Lessons(UNEVEN, SETTINGS.tokens_per_step, "meta")
    streams = [draws(rows, SETTINGS.tokens_per_step, 0) for rows in UNEVEN]
    with OneDevice() as planning:
        plan = lessons.plan([list(islice(stream, 3)) for stream in streams])
    assert (planning.copies, planning.waits) == (1, 0)
    with OneDevice() as stepping:
        for step in range(3):
            losses = students.step(lessons.batch(plan, step), 0.5)
    assert (stepping.copies, stepping.waits) == (0, 0)
    assert losses.shape == (3,)
    assert losses.device.type == "meta"
    parts = [*students.masters.values(), *students.workers.values(), *lessons.text, plan]
    assert {part.device.type for part in parts} == {"meta"}


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_stacked_students_compute_what_each_computes_alone(kv_heads):
    config = ModelConfig(32, 32, 20, 2, 4, kv_heads, max_position_embeddings=256)
    models = [Qwen2(config) for _ in UNEVEN]
    for seed, model in enumerate(models):
        model.initialise(seed)
    drawn = [next(draws(rows, 300, 0)) for rows in UNEVEN]
    lessons = Lessons(UNEVEN, 300, "cpu")
    batch = lessons.batch(lessons.plan([[draw] for draw in drawn]), 0)
    each = [dict(model.named_parameters()) for model in models]
    weights = {
        name: torch.stack([named[name].detach() for named in each]).requires_grad_()
        for name in each[0]
    }
    rope = (models[0].get_buffer("cos"), models[0].get_buffer("sin"))
    logits = stacked_logits(config, weights, rope, batch)
    losses = cross_entropy(logits, batch.targets.flatten(1))
    grads = torch.autograd.grad(losses.sum(), list(weights.values()))
    for number, (model, draw) in enumerate(zip(models, drawn, strict=True)):
        loss = loss_of(model, collate(draw))
        assert float(losses[number].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
        for name, grad in zip(weights, grads, strict=True):
            alone = torch.autograd.grad(loss, each[number][name], retain_graph=True)[0]
            assert torch.allclose(grad[number], alone, atol=1e-5), name


@pytest.mark.parametrize(
    ("mistake", "copies", "waits"),
    [
        (lambda there: there[torch.tensor([0, 1])], 1, 0),
        (lambda there: there.copy_(torch.ones(2)), 1, 0),
        (lambda there: torch.ones(2).sum().item(), 0, 1),
        (lambda there: bool(torch.ones(1) > 0), 0, 1),
        (lambda there: there.mul_(2).sum(), 0, 0),
    ],
)
def test_the_watch_sees_mistakes(mistake, copies, waits):
    with OneDevice() as watch:
        mistake(torch.ones(2, device="meta"))
    assert (watch.copies, watch.waits) == (copies, waits)


def test_losses_are_read_a_hundred_times_and_weights_once():
    models = [small(seed) for seed in range(2)]
    settings = [TrainSettings(200, tokens_per_step=64, decay="linear", dtype="float32")] * 2
    with Reads() as reads:
        train_together(models, [rows_of(20, 30)] * 2, settings)
    assert reads.names.count("tolist") == 100  # every second step
    assert reads.names.count("cpu") == len(list(models[0].parameters()))
    assert len(reads.names) == 100 + reads.names.count("cpu")


def operations_of_a_step(rows) -> int:
    students = Students([small() for _ in rows], SETTINGS, "bfloat16", "meta")
    lessons = Lessons(rows, SETTINGS.tokens_per_step, "meta")
    drawn = [[next(draws(some, SETTINGS.tokens_per_step, 0))] for some in rows]
    plan = lessons.plan(drawn)
    with OneDevice() as watch:
        students.step(lessons.batch(plan, 0), 0.5)
    return watch.operations


def test_operations_of_a_step_do_not_grow_with_students_or_lengths():
    assert operations_of_a_step(UNEVEN * 5) == operations_of_a_step([UNEVEN[0]] * 2)


@given(
    st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(64, 700),
)
def test_rows_of_every_draw_lie_whole_on_the_lines_that_all_share(sizes, tokens_per_step):
    rows = [rows_of(*some) for some in sizes]
    lessons = Lessons(rows, tokens_per_step, "cpu")
    streams = [draws(some, tokens_per_step, seed) for seed, some in enumerate(rows)]
    drawn = [list(islice(stream, 3)) for stream in streams]
    plan = lessons.plan(drawn)
    assert lessons.length == min(b for b in BUCKETS if b >= max(max(some) for some in sizes))
    for step in range(3):
        batch = lessons.batch(plan, step)
        assert batch.tokens.shape == (len(rows), lessons.lines, lessons.length)
        for student, some in enumerate(drawn):
            tokens, positions, targets = (
                part[student].flatten() for part in (batch.tokens, batch.positions, batch.targets)
            )
            places = some[step].places(lessons.length)
            for row, place in zip(some[step].rows, places, strict=True):
                there = slice(place, place + row.size)
                line, at = divmod(place, lessons.length)
                assert at + row.size <= lessons.length
                assert tokens[there].tolist() == list(row.tokens[:-1])
                assert positions[there].tolist() == list(range(row.size))
                learnt = targets[there].tolist()
                assert learnt[: row.start - 1] == [IGNORED] * min(row.start - 1, row.size)
                assert learnt[row.start - 1 :] == list(row.tokens[row.start :])
                seen = batch.bias[student, line, 0, at : at + row.size] == 0
                wanted = torch.zeros(row.size, lessons.length, dtype=torch.bool)
                wanted[:, at : at + row.size] = torch.ones(row.size, row.size).tril().bool()
                assert torch.equal(seen, wanted)
            learnt = sum(len(row.tokens[row.start :]) for row in some[step].rows)
            assert int((targets != IGNORED).sum()) == learnt


def test_a_student_of_no_numbers_harms_no_other():
    settings = [TrainSettings(5, tokens_per_step=300, dtype="float32", seed=n) for n in range(3)]
    well, ill = ([small(seed) for seed in range(3)] for _ in range(2))
    with torch.no_grad():
        ill[1].layers[0].mlp.up_proj.weight[0, 0] = math.nan
    healthy = train_together(well, UNEVEN, settings)
    records = train_together(ill, UNEVEN, settings)
    assert all(map(math.isnan, records[1].losses))
    for number in (0, 2):
        assert records[number].losses == healthy[number].losses
        for one, other in zip(well[number].parameters(), ill[number].parameters(), strict=True):
            assert torch.equal(one, other)


def test_a_company_of_one_is_served():
    (record,) = train_together([small()], [UNEVEN[1]], [SETTINGS])
    assert record.steps == 4
    assert math.isfinite(record.losses[-1])


def test_a_failed_training_leaves_models_as_they_were(monkeypatch):
    models = [small(seed) for seed in range(2)]
    before = [parameter.detach().clone() for parameter in models[1].parameters()]

    def full(self, batch, rate):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Students, "step", full)
    with pytest.raises(torch.OutOfMemoryError):
        train_together(models, UNEVEN[:2], [SETTINGS] * 2)
    for one, other in zip(before, models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def jobs(tmp_path, students: int) -> list[Job]:
    rows = tmp_path / "rows"
    rows.mkdir()
    words = [f"What is {n}+{n}?" for n in range(12)]
    reasoning = pl.Series([None] * 12, dtype=pl.String)
    pl.DataFrame(
        {"question": words, "reasoning": reasoning, "answer": [str(2 * n) for n in range(12)]}
    ).write_parquet(rows / "0.parquet")
    settings = Proxy().settings(None, {"steps": 2, "tokens_per_step": 128})
    made = []
    for seed in range(students):
        (tmp_path / str(seed)).mkdir()
        made.append(Job(BASE, rows, settings, seed, tmp_path / str(seed)))
    return made


def room_for(students: int, monkeypatch) -> list[int]:
    """Make the device too small for more; return how many were tried at once."""
    whole, tried = ensemble.train_together, []

    def limited(models, *given, **named):
        tried.append(len(models))
        if len(models) > students:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(models, *given, **named)

    monkeypatch.setattr(ensemble, "train_together", limited)
    return tried


def test_students_that_find_no_room_at_once_are_trained_by_halves(tmp_path, monkeypatch):
    given = jobs(tmp_path, 7)
    alone = Proxy().train_many(given)
    weights = [(job.folder / "model/model.safetensors").read_bytes() for job in given]
    for job in given:
        shutil.rmtree(job.folder / "model")
    tried = room_for(2, monkeypatch)
    trained = Proxy().train_many(given)
    assert tried == [7, 4, 2, 2, 2, 1]
    for job, one, other, weight in zip(given, trained, alone, weights, strict=True):
        assert isinstance(one, Trained)
        assert one.details["note"].startswith("the GPU has no room for 4 students at once; 2 are")
        assert (one.tokens, one.rows) == (other.tokens, other.rows)
        assert (job.folder / "model/model.safetensors").stat().st_size == len(weight)


def test_a_student_that_finds_no_room_alone_is_an_error_of_the_device(tmp_path, monkeypatch):
    room_for(0, monkeypatch)
    with pytest.raises(RuntimeError, match="out of memory"):
        Proxy().train_many(jobs(tmp_path, 2))


def test_a_student_whose_loss_is_no_number_fails_alone(tmp_path, monkeypatch):
    lesson = proxy._School.lesson

    def poisoned(self, job):
        found = lesson(self, job)
        if job.seed == 1:
            with torch.no_grad():
                found.model.norm.weight[0] = math.nan
        return found

    monkeypatch.setattr(proxy._School, "lesson", poisoned)
    reports: dict[int, list[float]] = {}
    given = []
    for job in jobs(tmp_path, 3):
        heard = reports.setdefault(job.seed, [])
        given.append(
            Job(
                job.base,
                job.rows,
                job.settings,
                job.seed,
                job.folder,
                lambda s, _, h=heard: h.append(s),
            )
        )
    trained = Proxy().train_many(given)
    assert isinstance(trained[1], TrainingFailed)
    assert "the loss is nan at step 1 of 2; lower the learning rates" in str(trained[1])
    assert not (given[1].folder / "model").exists()
    for number in (0, 2):
        assert isinstance(trained[number], Trained)
        assert reports[number] == [0.5, 1.0]


def test_rows_that_students_share_are_tokens_once(tmp_path):
    school = proxy._School(BASE)
    one, other = (school.lesson(job) for job in jobs(tmp_path, 2))
    assert all(a.tokens is b.tokens for a, b in zip(one.rows, other.rows, strict=True))
    assert len(Lessons([one.rows, other.rows], 128, "cpu").numbers) == len(one.rows) == 12
    with torch.no_grad():
        one.model.norm.weight.zero_()
    assert other.model.norm.weight.abs().sum() > 0
