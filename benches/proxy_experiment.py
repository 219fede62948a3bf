"""Does the proxy tell recipes apart? The spread between recipes against the noise between seeds.

    python benches/proxy_experiment.py [--seeds 3] [--recipes verified,unfiltered,...]

One experiment fine-tunes the base student on about 2,400 rows (400 steps of 1,024 tokens) and
grades it on 540 held-out questions, twice each at temperature 0.7. A seed changes the drawn
questions, the teacher's sampling, the order of rows and the sampling of the evaluation; base,
teachers and the evaluation questions stay as they are, so the noise printed here is too small for
claims beyond them. Prints accuracy and its standard deviation over seeds for each recipe, the ratio
of the spread between recipes to that noise, and the CPU-seconds of one experiment on one core.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from make_models import ask, chat_row, completion_of, is_right, write_model
from tokenizers import Tokenizer

from stillroom.families import FAMILIES, LEVELS, Problem, problem, stream
from stillroom.models.chat import Completion
from stillroom.models.local.engine import LocalModel
from stillroom.train.batches import TokenRow
from stillroom.train.loop import TrainSettings, train
from stillroom.train.model import load_model

EMBEDDED = Path(__file__).parents[1] / "src/stillroom/models/embedded"
ROWS = 2_400
ITEMS = [
    problem(family, level=level, index=index, split="heldout", seed=99)
    for family in FAMILIES
    for level in LEVELS
    for index in range(9)
]

Answered = tuple[Problem, Completion]


def answered(
    teacher: str, n: int, seed: int, *, levels: Sequence[int] = LEVELS, draws: int = 1,
    style: str | None = "careful",
) -> list[Answered]:  # fmt: skip
    """Draw n questions of the train split and answer each."""
    model = LocalModel(EMBEDDED / teacher, name=teacher, threads=1)
    questions = list(stream(list(FAMILIES), levels, "train", seed, length=n))
    replies = ask(model, questions, style, 0.9, draws)
    return [(q, reply) for q, row in zip(questions, replies, strict=True) for reply in row]


def right(rows: list[Answered]) -> list[Answered]:
    """Keep verified answers, up to the size of the other recipes."""
    return [(q, r) for q, r in rows if is_right(q, r)][:ROWS]


RECIPES: dict[str, Callable[[int], list[Answered]] | None] = {
    "base": None,
    "verified": lambda s: right(answered("teacher-1", 2_700, s)),
    "unfiltered": lambda s: answered("teacher-1", ROWS, s),
    "hard": lambda s: answered("teacher-1", ROWS, s, levels=(4, 5)),
    "easy": lambda s: answered("teacher-1", ROWS, s, levels=(1, 2)),
    "150 x 16": lambda s: answered("teacher-1", 150, s, draws=16),
    "mixed styles": lambda s: answered("teacher-1", ROWS, s, style=None),
    "brief": lambda s: answered("teacher-1", ROWS, s, style="brief"),
    "novice": lambda s: answered("novice-1", ROWS, s),
    "novice verified": lambda s: right(answered("novice-1", 7_000, s)),
}


def grade(directory: Path, seed: int) -> float:
    """Return the share of right answers; the name of the model seeds its sampling."""
    student = LocalModel(directory, name=f"student-{seed}", threads=1)
    replies = ask(student, ITEMS, None, 0.7, 2)
    graded = [is_right(i, r) for i, row in zip(ITEMS, replies, strict=True) for r in row]
    return sum(graded) / len(graded)


def experiment(rows: list[Answered], seed: int) -> tuple[float, float]:
    """Train a student and grade it; return its accuracy and the CPU-seconds of both."""
    started = time.process_time()
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "base-1" / "tokenizer.json"))
    tokens: list[TokenRow] = [
        chat_row(tokenizer, None, q.question, completion_of((r.reasoning or ""), r.answer))
        for q, r in rows
        if r.finish_reason == "stop"
    ]
    student = load_model(EMBEDDED / "base-1")
    settings = TrainSettings(
        steps=400, tokens_per_step=1_024, muon_lr=2e-3, adam_lr=1e-3, warmup_share=0.05,
        decay="linear", seed=seed,
    )  # fmt: skip
    train(student, tokens, settings)
    with tempfile.TemporaryDirectory() as folder:
        write_model(student, tokenizer, Path(folder))
        accuracy = grade(Path(folder), seed)
    return accuracy, time.process_time() - started


def main() -> None:
    """Run the grid and print a line for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    given = parser.parse_args()
    means, noises, seconds = [], [], []
    for name in given.recipes.split(","):
        make = RECIPES[name]
        scores = []
        for seed in range(given.seeds):
            if make is None:
                scores.append(grade(EMBEDDED / "base-1", seed))
            else:
                accuracy, took = experiment(make(seed), seed)
                scores.append(accuracy)
                seconds.append(took)
        noise = statistics.stdev(scores) if len(scores) > 1 else float("nan")
        print(f"{name:16} {statistics.mean(scores):.3f}  sd {noise:.3f}", flush=True)
        means.append(statistics.mean(scores))
        noises.append(noise)
    pooled = statistics.mean(noise**2 for noise in noises) ** 0.5
    if len(means) > 1:
        spread = statistics.stdev(means)
        print(f"between recipes {spread:.3f}, between seeds {pooled:.3f}: {spread / pooled:.1f} x")
    if seconds:
        print(f"one experiment: {statistics.median(seconds):.0f} CPU-seconds, train and grade")


if __name__ == "__main__":
    main()
