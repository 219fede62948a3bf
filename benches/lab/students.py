"""Students per hour: one by one, two at a time, many at once, compiled, and by TRL.

    python benches/lab/students.py             # a full student each, on a GPU if there is one
    python benches/lab/students.py --ways "trl packed;alone;two processes" --steps 100

Every way trains the base student (0.46M parameters) on the same 1,200 answers of the embedded
teacher: the same number of optimizer steps, about the same number of tokens, the same optimizer
(TRL is given ours) and schedule. First it is checked that all give a student of the same quality:
the mean loss on 200 other answers, in float32, must agree within float noise among our own ways,
which see the same batches, and within 0.02 nats with TRL, which makes batches of its own. Then CPU
and wall seconds count: of training alone, after libraries and the base model are loaded. TRL's rows
are tokens already, so that it pays for no chat template.

"students per hour" (of so many steps) is by the clock, on an idle machine; "by CPU time" is what
two cores that do nothing else would give if each ran such a job, and is the one to compare on a
busy machine. On a GPU, which `trl` and "at once" then use, the clock alone counts; a few steps of
each way go before, which make the device ready and are not counted.

Without a GPU, what the host allows is told too: the steps of 64 students at once are planned, and
their operations called on tensors of next to no size. A GPU that took no time at all would wait
for that. It is a bound, estimated on this machine's core, and not a speed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

EMBEDDED = Path(__file__).parents[2] / "src/stillroom/models/embedded"
BASE = EMBEDDED / "base-1"
ROWS, HELD_OUT = 1_200, 200
NOISE, OTHER_BATCHES = 0.002, 0.02  # nats per token


@dataclass(frozen=True)
class Way:
    """One way to train: what runs in a child process, and how many children at a time."""

    kind: str
    threads: int = 1
    students: int = 1
    children: int = 1
    options: tuple[str, ...] = ()


WAYS = {
    "trl padded float32": Way("trl", options=("float32",)),
    "trl padded bfloat16": Way("trl", options=("bfloat16",)),
    "trl by length bfloat16": Way("trl", options=("bfloat16", "by length")),
    "trl packed float32": Way("trl", options=("float32", "packed")),
    "trl packed": Way("trl", options=("bfloat16", "packed")),
    "trl packed, 2 threads": Way("trl", threads=2, options=("bfloat16", "packed")),
    "alone": Way("alone"),
    "alone, 2 threads": Way("alone", threads=2),
    "two processes": Way("alone", children=2),
    "compiled": Way("compiled"),
    "1 at once": Way("ensemble"),
    "4 at once": Way("ensemble", students=4),
    "8 at once": Way("ensemble", students=8),
    "64 at once": Way("ensemble", students=64),
    "256 at once": Way("ensemble", students=256),
    "64 at once, compiled": Way("ensemble", students=64, options=("compiled",)),
}
USUAL = {
    "cpu": [name for name, way in WAYS.items() if way.kind != "ensemble" or way.students == 4],
    "cuda": ["trl padded bfloat16", "trl by length bfloat16", "trl packed", "alone"]
    + [name for name, way in WAYS.items() if way.kind == "ensemble" and way.students != 4],
}
"""What is compared on a machine: ways of kind trl and ensemble run on its GPU, others never do."""


def prepare(folder: Path) -> None:
    """Write rows as tokens: what the embedded teacher answers, apart for learning and grading."""
    from make_models import ask, chat_row, completion_of
    from tokenizers import Tokenizer

    from stillroom.families import FAMILIES, LEVELS, stream
    from stillroom.models.local.engine import LocalModel

    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    teacher = LocalModel(EMBEDDED / "teacher-1", name="teacher-1")
    questions = list(stream(list(FAMILIES), LEVELS, "train", 0, length=ROWS + HELD_OUT + 100))
    replies = ask(teacher, questions, "careful", 0.9, 1)
    rows = [
        chat_row(tokenizer, None, q.question, completion_of(reply.reasoning or "", reply.answer))
        for q, (reply,) in zip(questions, replies, strict=True)
        if reply.finish_reason == "stop"
    ]
    for name, part in (("rows", rows[:ROWS]), ("held out", rows[ROWS : ROWS + HELD_OUT])):
        (folder / f"{name}.json").write_text(json.dumps([[list(t), s] for t, s in part]))


def read(folder: Path, name: str) -> list[Any]:
    """Read what `prepare` wrote."""
    from stillroom.train.batches import TokenRow

    return [TokenRow(*row) for row in json.loads((folder / f"{name}.json").read_text())]


def settings(steps: int, threads: int, seed: int = 0) -> Any:
    """Return the proxy trainer's own settings."""
    from stillroom.train.loop import TrainSettings
    from stillroom.train.proxy import DEFAULTS

    return TrainSettings(**{**DEFAULTS, "steps": steps}, seed=seed, threads=threads)  # type: ignore[arg-type]


def loss_of(model: Any, rows: list[Any]) -> float:
    """Return the mean loss per learnt token of held-out rows, in float32."""
    import torch

    from stillroom.train.batches import causal_bias

    total, count = 0.0, 0
    with torch.inference_mode():
        for tokens, start in rows:
            ids = torch.tensor([tokens])
            n = len(tokens)
            logits = model(ids[:, :-1], torch.arange(n - 1)[None], causal_bias(n - 1))[0]
            found = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[start - 1 :]
            total, count = total - float(found.sum()), count + len(found)
    return total / count


def child(way: Way, folder: Path, steps: int, device: str) -> dict[str, Any]:
    """Train in this process, and say what it took and how good the first student is."""
    import torch

    from stillroom.train.model import load_model

    rows, held = read(folder, "rows"), read(folder, "held out")
    models = [load_model(BASE) for _ in range(way.students)]
    run = {"alone": alone, "ensemble": ensemble, "compiled": compiled, "trl": by_trl}[way.kind]
    if device != "cpu" and way.kind in ("ensemble", "trl"):
        run(way, [load_model(BASE) for _ in models], rows, 3, device)
    cpu_s, wall_s, tokens = run(way, models, rows, steps, device)
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        most = torch.cuda.max_memory_allocated() / 2**30
        print(f"  note: {most:.1f} GiB of the GPU in use at most", file=sys.stderr)
    return {
        "cpu_s": cpu_s / way.students, "wall_s": wall_s, "tokens": tokens,
        "loss": loss_of(models[0], held),
    }  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return CPU and wall seconds of some work, and its result."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def alone(
    way: Way, models: list[Any], rows: list[Any], steps: int, device: str
) -> tuple[float, float, int]:
    """Train one student by the plain loop."""
    from stillroom.train.loop import train

    cpu, wall, record = timed(lambda: train(models[0], rows, settings(steps, way.threads)))
    return cpu, wall, record.tokens


def compiled(
    way: Way, models: list[Any], rows: list[Any], steps: int, device: str
) -> tuple[float, float, int]:
    """Train one student with the forward and backward pass compiled; compiling is not counted."""
    import torch

    from stillroom.train import loop
    from stillroom.train.model import load_model

    plain = loop.loss_of
    loop.loss_of = torch.compile(plain)  # type: ignore[assignment]
    cpu, *_ = timed(lambda: loop.train(load_model(BASE), rows, settings(steps, way.threads)))
    print(f"  note: the first student took {cpu:.0f} CPU s, compiling included", file=sys.stderr)
    return alone(way, models, rows, steps, device)


def ensemble(
    way: Way, models: list[Any], rows: list[Any], steps: int, device: str
) -> tuple[float, float, int]:
    """Train several students at once; the first sees what it would see alone."""
    import torch

    from stillroom.train import ensemble as module

    if "compiled" in way.options:
        plain = module.stacked_logits
        # One graph, and of one shape: whatever breaks either is an error here.
        module.stacked_logits = torch.compile(plain, fullgraph=True, dynamic=False)
    each = [settings(steps, way.threads, seed) for seed in range(way.students)]
    cpu, wall, records = timed(
        lambda: module.train_together(models, [rows] * way.students, each, device=device)
    )
    return cpu, wall, records[0].tokens


def bound(rows: list[Any], steps: int, students: int = 64) -> str:
    """Tell how many students per hour the host of a GPU allows, by what it does at each step."""
    from dataclasses import replace

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from stillroom.train.batches import TokenRow, draws
    from stillroom.train.ensemble import PLANNED, Lessons, Students
    from stillroom.train.model import ModelConfig, Qwen2

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(
            self, call: Any, types: Any, args: Any = (), given: Any = None
        ) -> Any:
            self.calls += 1
            return call(*args, **(given or {}))

    torch.set_num_threads(1)
    chosen = settings(steps, 1)
    times = 20
    lessons = Lessons([rows] * students, chosen.tokens_per_step, "cpu")
    streams = [draws(rows, chosen.tokens_per_step, seed) for seed in range(students)]

    def planned() -> None:
        lessons.plan([list(islice(stream, PLANNED)) for stream in streams])

    planned()  # an epoch is packed at its first draw
    plan_s = min(timed(planned)[0] for _ in range(times)) / PLANNED

    base = ModelConfig.from_json((BASE / "config.json").read_text())
    heads = base.num_attention_heads
    tiny = replace(base, vocab_size=16, hidden_size=4 * heads, intermediate_size=16)
    chosen = replace(chosen, tokens_per_step=8)
    few = [TokenRow([1, 2, 3, 4], 2)] * 8
    small = Lessons([few], 8, "cpu")
    plan = small.plan([[next(draws(few, 8, 0))]])

    def stepping(dtype: str) -> Callable[[], Any]:
        student = Students([Qwen2(tiny)], chosen, dtype, "cpu")
        return lambda: student.step(small.batch(plan, 0), 0.5)

    counted = stepping("bfloat16")
    with Count() as count:
        counted()
    # In float32, because a product in bfloat16 costs a CPU far more than to launch one on a GPU.
    stepped = stepping("float32")
    stepped()
    step_s = min(timed(stepped)[0] for _ in range(times))
    most = 3600 * students / (steps * (plan_s + step_s))
    return (
        f"bound, not a speed: {students} at once on a GPU are at most about {most:,.0f} per hour; "
        f"at each step the host calls {count.calls:,} operations in {1e3 * step_s:.1f} ms, and "
        f"plans in {1e3 * plan_s:.1f} ms"
    )


def by_trl(
    way: Way, models: list[Any], rows: list[Any], steps: int, device: str
) -> tuple[float, float, int]:
    """Train one student by TRL's SFTTrainer, with our optimizer and schedule."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from stillroom.train.batches import draws
    from stillroom.train.loop import optimizer_of, rate

    torch.set_num_threads(way.threads)
    chosen = settings(steps, way.threads)
    # As many rows, or tokens, per step as our loop has.
    seen = [draw.rows for draw in islice(draws(rows, chosen.tokens_per_step, chosen.seed), steps)]
    rows_per_step = round(sum(map(len, seen)) / steps)
    tokens_per_step = round(sum(len(row.tokens) for rows in seen for row in rows) / steps)
    packed = "packed" in way.options
    model = AutoModelForCausalLM.from_pretrained(
        BASE, dtype=torch.float32, attn_implementation="sdpa" if packed else "eager"
    ).to(device)  # before the optimizer takes hold of the weights
    named = {name.removeprefix("model."): p for name, p in model.named_parameters()}
    weights = {name: p.detach()[None] for name, p in named.items()}
    inner = optimizer_of(weights, weights, chosen)

    class Ours(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(list(named.values()), {"lr": 1.0})

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            grads = {name: p.grad[None] for name, p in named.items() if p.grad is not None}
            inner.step(grads, self.param_groups[0]["lr"])

    ours = Ours()
    schedule = torch.optim.lr_scheduler.LambdaLR(ours, lambda step: rate(step, chosen))
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out, max_steps=steps, use_cpu=device == "cpu",
            bf16="bfloat16" in way.options,
            per_device_train_batch_size=1 if packed else rows_per_step,
            packing=packed, max_length=tokens_per_step if packed else 1024,
            train_sampling_strategy="group_by_length" if "by length" in way.options else "random",
            max_grad_norm=0.0, gradient_checkpointing=False, completion_only_loss=False,
            save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=steps,
            seed=0, dataloader_num_workers=0,
        )  # fmt: skip
        labels = [[-100] * start + list(tokens[start:]) for tokens, start in rows]
        table = Dataset.from_dict({"input_ids": [t for t, _ in rows], "labels": labels})

        def work() -> None:
            SFTTrainer(
                model=model, args=config, train_dataset=table,
                processing_class=AutoTokenizer.from_pretrained(BASE),
                optimizers=(ours, schedule),
            ).train()  # fmt: skip

        cpu, wall, _ = timed(work)
    models[0].load_state_dict({name: p.detach() for name, p in named.items()})
    return cpu, wall, steps * tokens_per_step


def measure(name: str, folder: Path, steps: int, device: str) -> dict[str, Any] | str:
    """Run the children of one way at the same time; return what they took, or why they failed."""
    way = WAYS[name]
    command = [
        sys.executable, __file__, "--child", name, "--folder", str(folder), "--steps", str(steps),
        "--device", device,
    ]  # fmt: skip
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(way.children)
    ]
    said = [(*process.communicate(), process.returncode) for process in running]
    for out, err, status in said:
        if status:
            return (err.strip().splitlines() or [out])[-1][:160]
    told = [json.loads(out.strip().splitlines()[-1]) for out, _, _ in said]
    wall_s = max(one["wall_s"] for one in told)
    return {
        **told[0],
        "cpu_s": sum(one["cpu_s"] for one in told) / len(told),
        "per_hour": 3600 * way.students * way.children / wall_s,
        "notes": [line.strip() for line in said[0][1].splitlines() if "note:" in line],
    }


def main() -> None:
    """Check that outcomes agree, then print a line for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ways", help=f"names, apart by semicolons, of: {'; '.join(WAYS)}")
    parser.add_argument("--device", choices=sorted(USUAL), help="a GPU if there is one")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the rows here, and take them from here")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(WAYS[given.child], given.folder, given.steps, given.device)))
        return
    from stillroom.train.proxy import group_size

    device = given.device or ("cuda" if group_size() > 1 else "cpu")
    names = [part.strip() for part in given.ways.split(";")] if given.ways else USUAL[device]
    for name in names:
        if name not in WAYS:
            parser.error(f"--ways: {name!r} is no way; expected some of {'; '.join(WAYS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "held out.json").exists():
            prepare(folder)
        found: dict[str, Any] = {}
        print(f"{'':24} {'loss':>7} {'CPU s':>7} {'tokens':>9} {'per hour':>9} {'by CPU time':>12}")
        for name in names:
            one = measure(name, folder, given.steps, device)
            if isinstance(one, str):
                print(f"{name:24} failed: {one}", flush=True)
                continue
            found[name] = one
            print(
                f"{name:24} {one['loss']:7.4f} {one['cpu_s']:7.1f} {one['tokens']:9,} "
                f"{one['per_hour']:9.0f} {2 * 3600 / one['cpu_s']:12.0f}",
                *one["notes"], flush=True,
            )  # fmt: skip
        check(found)
        if device == "cpu":
            print(bound(read(folder, "rows"), given.steps))


def check(found: dict[str, Any]) -> None:
    """Refuse to compare speeds of students that are not alike."""
    ours = {n: one["loss"] for n, one in found.items() if not n.startswith("trl")}
    if not ours:
        return
    centre = sum(ours.values()) / len(ours)
    for name, one in found.items():
        allowed = OTHER_BATCHES if name.startswith("trl") else NOISE
        if abs(one["loss"] - centre) > allowed:
            sys.exit(f"{name}: loss {one['loss']:.4f}; expected {centre:.4f} within {allowed}")
    print(f"all students agree: {centre:.4f}, ours within {NOISE}, TRL's within {OTHER_BATCHES}")


if __name__ == "__main__":
    main()
