"""Measure whether races keep their promise, and what they save; write the table of docs/racing.md.

Usage: python scripts/check_races.py [--races 500] [--write]

Students of known difference are simulated on a logistic scale: questions of different difficulty, a
taste of each arm for each question, noise of each training run, and noise that all arms of a seed
share. An arm's level at a smaller scale is its level at the last one and a shift of its own, which
is what makes ranks cross. True accuracies are means over many questions.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillroom.study.race.elimination import Rule, look
from stillroom.study.statistics.noise import by_seed, training_noise
from stillroom.study.statistics.outcomes import Outcomes

PAGE = Path(__file__).parents[1] / "docs" / "racing.md"
START, END = "<!-- measured by scripts/check_races.py -->", "<!-- end -->"
TASTE, SHARED, SPREAD, REPEATS = 0.3, 0.1, 1.5, 2
GRID = np.random.default_rng(1).normal(-0.5, SPREAD, 20_000)


@dataclass(frozen=True)
class World:
    """One kind of race.

    Attributes:
        name: In words.
        levels: Of the arms at the last scale, on the logistic scale; 0.1 is about 1.7 points.
        shift: Standard deviation of what a smaller scale adds to the level of each arm.
        noise: Standard deviation of a student's level over seeds.
        looks: Scale (rows) and seeds of each round.
        questions: Of the benchmark.
        margin: Of the race.
    """

    name: str
    levels: tuple[float, ...]
    shift: float
    noise: float
    looks: tuple[tuple[int, int], ...]
    questions: int = 540
    margin: float = 0.04
    matters: float = 0.02


def accuracy(level: np.ndarray, noise: float) -> np.ndarray:
    """Return the true accuracy of each arm, over questions and seeds."""
    sd = math.sqrt(TASTE**2 + noise**2 + SHARED**2)
    rng = np.random.default_rng(2)
    scale = GRID + rng.normal(0, sd, GRID.size)
    return (1 / (1 + np.exp(-(level[:, None] + scale)))).mean(axis=1)


@dataclass
class Tally:
    """What happened in many races."""

    lost_best: int = 0
    broken: int = 0
    named: int = 0
    wrong: int = 0
    sole: int = 0
    sole_wrong: int = 0
    held: int = 0
    rows: int = 0
    left: int = 0


def race(world: World, rng: np.random.Generator, tally: Tally) -> None:
    """Run one race and count what happened."""
    arms = len(world.levels)
    level = np.array(world.levels)
    scales = sorted({rows for rows, _ in world.looks})
    most = max(seeds for _, seeds in world.looks)
    shifts = {rows: rng.normal(0, world.shift, arms) for rows in scales}
    shifts[scales[-1]] = np.zeros(arms)
    true = {rows: accuracy(level + shifts[rows], world.noise) for rows in scales}
    final = true[scales[-1]]
    best = final.max()
    tops = {a for a in range(arms) if best - final[a] < 1e-9}
    hard = rng.normal(-0.5, SPREAD, world.questions)
    right = {}
    for rows in scales:
        shared = rng.normal(0, SHARED, most)
        own = (level + shifts[rows])[:, None] + rng.normal(0, world.noise, (arms, most)) + shared
        taste = rng.normal(0, TASTE, (arms, 1, world.questions))
        chance = 1 / (1 + np.exp(-(own[:, :, None] + hard + taste)))
        right[rows] = rng.binomial(REPEATS, chance) / REPEATS
    rule = Rule(arms, len(world.looks), 0.95, world.matters)
    left = list(range(arms))
    close: list[int] = []
    trained: dict[tuple[int, int], int] = {}
    by: dict[int, dict[str, list[float]]] = {rows: {} for rows in scales}
    # The best arm must be behind no other by more than the margin at the small scale.
    kept = all(
        (true[rows][list(tops)][:, None] - true[rows][None] >= -world.margin).all()
        for rows in scales
    )
    for rows, seeds in world.looks:
        trained |= {(rows, arm): seeds for arm in left}
        table = right[rows][left][:, :seeds]
        names = tuple(str(a) for a in left)
        outcomes = Outcomes(
            names, tuple(range(seeds)), {"b": table}, {"b": np.full(len(left), math.nan)},
            {"b": 1 / (seeds * REPEATS)},
        )  # fmt: skip
        last = rows == scales[-1]
        by[rows] |= by_seed(outcomes)
        seen = look(
            outcomes,
            rule,
            training_noise(by[rows]),
            margin=0.0 if last else world.margin,
            last=last,
        )
        left = [int(a) for a in seen.left]
        close = [int(a) for a in seen.close]
        if len(left) < 2 or close:
            break
    tally.rows += sum(rows * seeds for (rows, _), seeds in trained.items())
    tally.left += len(left)
    tally.broken += not kept
    lost_best = not tops & set(left)
    tally.lost_best += lost_best
    winner = left[0] if len(left) == 1 else close[0] if close else None
    wrong = winner is not None and best - final[winner] >= world.matters
    tally.named += winner is not None
    tally.wrong += wrong
    tally.sole += len(left) == 1
    tally.sole_wrong += len(left) == 1 and (left[0] not in tops or len(tops) > 1)
    tally.held += not lost_best and not wrong


PLAN = ((300, 3), (1200, 3), (1200, 6))
SPREAD_OUT = (0.0, 0.1, -0.2, -0.35, -0.5, 0.05, -0.8, -0.15)
WORLDS = (
    World("2 alike", (0.0,) * 2, 0.0, 0.05, PLAN),
    World("2 alike, noisy", (0.0,) * 2, 0.0, 0.2, PLAN),
    World("5 alike", (0.0,) * 5, 0.0, 0.05, PLAN),
    World("5 alike, noisy", (0.0,) * 5, 0.0, 0.2, PLAN),
    World("12 alike", (0.0,) * 12, 0.0, 0.05, PLAN),
    World("3 alike, 4,000 questions", (0.0,) * 3, 0.0, 0.03, PLAN, questions=4_000),
    World("one of 5 better by 2 points", (0.1, 0, 0, 0, 0), 0.0, 0.05, PLAN),
    World("one of 5 better by 5 points", (0.3, 0, 0, 0, 0), 0.0, 0.05, PLAN),
    World("one of 5 better by 5 points, noisy", (0.3, 0, 0, 0, 0), 0.0, 0.2, PLAN),
    World("8 over 15 points", SPREAD_OUT, 0.0, 0.05, PLAN),
    World("8 over 15 points, 4,000 questions", SPREAD_OUT, 0.0, 0.05, PLAN, questions=4_000),
    World("8 over 15 points, without the small scale", SPREAD_OUT, 0.0, 0.05, PLAN[1:]),
    World("8 over 15 points, small scale off by 1 point", SPREAD_OUT, 0.05, 0.05, PLAN),
    World("8 over 15 points, small scale off by 2 points", SPREAD_OUT, 0.1, 0.05, PLAN),
    World("8 over 15 points, small scale off by 3½ points", SPREAD_OUT, 0.2, 0.05, PLAN),
    World("the same, no margin", SPREAD_OUT, 0.2, 0.05, PLAN, margin=0.0),
)


def measure(world: World, races: int) -> list[str]:
    """Return the cells of one line."""
    rng, tally = np.random.default_rng(0), Tally()
    for _ in range(races):
        race(world, rng, tally)
    arms, (rows, seeds) = len(world.levels), world.looks[-1]
    percent = [
        tally.broken,
        tally.held,
        tally.lost_best,
        tally.wrong,
        tally.sole_wrong,
        tally.named,
        tally.sole,
    ]
    return [
        world.name,
        *(f"{100 * n / races:.1f}" for n in percent),
        f"{tally.left / races:.1f}",
        f"{100 * (1 - tally.rows / races / (arms * rows * seeds)):.0f}",
    ]


def main() -> None:
    """Print the table, and write it into the page if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=500)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    header = [
        "arms", "assumption broken", "promise kept", "best arm dropped",
        "winner worse by what matters", "false claim of one best", "winner named", "one arm best",
        "arms left", "rows saved",
    ]  # fmt: skip
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    print(lines[0])
    for world in WORLDS:
        lines.append("| " + " | ".join(measure(world, given.races)) + " |")
        print(lines[-1], flush=True)
    note = (
        f"{given.races:,} simulated races in each line; all figures but the arms left in percent."
    )
    if given.write:
        text = PAGE.read_text("utf-8")
        before, rest = text.split(START)
        block = "\n".join([START, "", note, "", *lines, "", END])
        PAGE.write_text(before + block + rest.split(END, 1)[1], "utf-8")


if __name__ == "__main__":
    main()
