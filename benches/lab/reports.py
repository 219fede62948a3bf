"""What the report of a large study takes: seconds, memory and size, beside a plain bootstrap.

    python benches/lab/reports.py             # 60 arms, 3 seeds, the paper's twelve benchmarks
    python benches/lab/reports.py --arms 95 --out report

Students are made up: right with a chance that depends on arm, seed and item, on twelve benchmarks
of the sizes and repeats of OpenThoughts (arXiv 2506.04178): 13,287 attempts each. Then everything
is done that `stillroom study` does when all grades are there: attempts become means, arms are
compared on each benchmark and on all together, and the report is written.

The peer is the interval that most people would compute: a percentile bootstrap in numpy over the
questions of the same means, 1,000 draws for each arm on each benchmark, a whole benchmark at a
time. It knows nothing of seeds, nor of all benchmarks together; it is there for its speed.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from stillroom.evaluate.grade import Grades
from stillroom.study.form import Study
from stillroom.study.reports.study import write_report
from stillroom.study.result import Result, Sat
from stillroom.study.statistics.comparing import differences, not_worse, scores
from stillroom.study.statistics.outcomes import Outcomes

SIZES: Mapping[str, tuple[int, int]] = {
    "aime24": (30, 10), "amc23": (40, 10), "math500": (500, 1), "codeelo": (391, 3),
    "codeforces": (453, 3), "livecodebench": (511, 6), "gpqa_diamond": (198, 3),
    "jeebench": (515, 3), "aime25": (30, 10), "hmmt_feb25": (30, 10), "hle": (512, 3),
    "livecodebench_24_25": (369, 6),
}  # fmt: skip
DRAWS = 1_000
WAYS = (
    "exact dedup", "fuzzy dedup at 90 percent", "no dedup", "length by GPT-4.1-mini", "AskLLM",
    "fastText, positives NuminaMath, negatives Lap1official", "embedding", "random",
)  # fmt: skip


def made_up(arms: int, seeds: int) -> Result:
    """Make a study whose arms differ by a few points, and its grades."""
    rng = np.random.default_rng(0)
    names = [f"{WAYS[n % len(WAYS)]}, {60 + 16 * n} questions" for n in range(arms)]
    study = Study.model_validate(
        {
            "name": "made-up", "base": "none", "rows": 31_600, "seeds": seeds,
            "question": "Which way to choose questions teaches the most?",
            "arms": {name: {"math.take": n} for n, name in enumerate(names)},
            "student": {"model": "made/up"}, "benchmarks": list(SIZES),
        }
    )  # fmt: skip
    hard = {name: rng.normal(0, 1.5, n) for name, (n, _) in SIZES.items()}
    sat = [_student("made/up", 0, None, -1.0, hard, rng)]
    skills = rng.normal(0, 0.15, arms)
    for seed in range(seeds):
        for name, skill in zip(names, skills, strict=True):
            key = f"{len(sat):032x}"
            sat.append(_student(name, seed, key, skill + rng.normal(0, 0.05), hard, rng))
    return Result(study, sat, {(name, seed): [] for name in names for seed in range(seeds)})


def _student(
    arm: str, seed: int, key: str | None, skill: float, hard: Mapping[str, "np.ndarray"],
    rng: np.random.Generator,
) -> Sat:  # fmt: skip
    grades = {}
    for name, (n, repeats) in SIZES.items():
        right = rng.random((n, repeats)) < 1 / (1 + np.exp(hard[name] - skill))[:, None]
        items = np.repeat([f"{name[:8]:0<8}{i:024x}" for i in range(n)], repeats)
        verdict = np.where(right.ravel(), "correct", "incorrect")
        table = pl.DataFrame(
            {
                "item": items, "repeat": np.tile(np.arange(repeats, dtype=np.int32), n),
                "score": right.ravel().astype(float), "verdict": verdict,
                "finish_reason": pl.Series(["stop"]).new_from_index(0, n * repeats),
                "completion_tokens": rng.integers(500, 20_000, n * repeats),
            }
        )  # fmt: skip
        grades[name] = Grades(table, {"verify": f"{hash_of(arm, seed, name)}"})
    return Sat(arm, seed, key, 31_600, 31_600, 31_600, key or "", grades=grades)


def hash_of(*parts: object) -> str:
    """Return what looks like a key."""
    return "".join(f"{ord(c):02x}" for c in "/".join(map(str, parts)))[-32:]


def bootstrap(outcomes: Outcomes) -> int:
    """Bootstrap the difference of every arm from the first on every benchmark; return how many."""
    rng = np.random.default_rng(0)
    done = 0
    for table in outcomes.means.values():
        by_item = table.mean(axis=1)
        apart = by_item[1:] - by_item[0]
        drawn = rng.multinomial(apart.shape[1], np.full(apart.shape[1], 1 / apart.shape[1]), DRAWS)
        means = apart @ drawn.T / apart.shape[1]
        np.quantile(means, [0.025, 0.975], axis=1)
        done += len(apart)
    return done


def main() -> None:
    """Measure each part once, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    result = made_up(given.arms, given.seeds)
    names = list(result.study.arms)
    took: dict[str, float] = {}

    def timed(what: str, started: float) -> None:
        took[what] = time.process_time() - started

    before = _mb()
    started = time.process_time()
    grades = result.grades()
    outcomes = Outcomes.of(grades, names)
    timed("attempts become means", started)
    started = time.process_time()
    scores(outcomes), differences(outcomes), not_worse(outcomes)
    timed("intervals and p values", started)
    started = time.process_time()
    done = bootstrap(outcomes)
    timed("numpy bootstrap of the differences", started)
    folder = given.out or Path(tempfile.mkdtemp())
    started = time.process_time()
    written = write_report(result, folder)
    timed("the whole report", started)
    print(
        f"{len(names)} arms x {given.seeds} seeds, {grades.height:,} attempts, {done} comparisons"
    )
    for what, seconds in took.items():
        print(f"{what:36} {seconds:7.2f} s of CPU")
    peer = took["numpy bootstrap of the differences"]
    print(f"report / bootstrap: {took['the whole report'] / peer:.1f}")
    print(f"memory above that of the grades' tables: {_mb() - before:,.0f} MB at the most")
    for path in written:
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")


def _mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
