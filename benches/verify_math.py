"""Compare our maths verifier with plain math-verify: pairs per second of CPU time, one core.

Three kinds of made-up references (integers, numbers of other kinds, expressions) and, where
STILLROOM_DATA names the folder of real data, three of real ones: two of references that are no
numbers, every one of them different, answered rightly or with a digit or sign changed ("near"), and
answered with another question's reference ("far"), which is seldom of the same form; and what QwQ
and R1 answered to tasks with a number, an expression or a word for an answer ("natural"). Each is
answered in a short visible answer and at the end of a long trace (thinking and answer); with real
references the thinking is that of R1, at the length that it had. math-verify gets what
it is usually given, the whole completion; ours gets the visible answer, which is kept apart from
the thinking when a completion arrives, and, to be fair, the whole completion in a second line.
The share of equal verdicts is printed: on made-up references it must be 100%; on real ones math-
verify errs now and then (see `verify_edits.py`). The worker's CPU time counts, and so does its
start, which matters less the more pairs there are.

Run: python benches/verify_math.py [--pairs 300] [--trace-kb 20]
"""

import argparse
import json
import logging
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from math_verify import parse, verify  # noqa: E402
from tests.answer_edits import CHANGE, KEEP, references  # noqa: E402

from stillroom.text.think import join_thinking, split_thinking  # noqa: E402
from stillroom.verifiers import Task, verifier  # noqa: E402
from stillroom.verifiers.math import bare, number  # noqa: E402
from stillroom.verifiers.reader import read  # noqa: E402

STEPS = (
    "First, note that ${a} + {b} = {c}$, so the sum is {c}.",
    r"Wait, let me check that again: $\frac{{{a}}}{{{b}}} \cdot {b} = {a}$, which is right.",
    r"Let $x = {a}$ and $y = {b}$. Then \[x^2 - y^2 = (x - y)(x + y) = {d}.\]",
    "So there are {a} of them, and {b} of the others.",
    r"Hmm, $\sqrt{{{a}}}$ is about as large as $\log {b}$, but that does not help.",
)


def thinking(rng: random.Random, size: int) -> str:
    """Write `size` characters of plausible reasoning."""
    lines: list[str] = []
    length = 0
    while length < size:
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        line = rng.choice(STEPS).format(a=a, b=b, c=a + b, d=a * a - b * b)
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)


def integers(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(0, 99_999)
    return rng.choice([str(value), f"{value:,}", f"{value}.0", str(value + 1)]), str(value)


def numbers(rng: random.Random) -> tuple[str, str]:
    top, bottom = rng.randint(1, 40), rng.choice([2, 4, 5, 8])
    written = [rf"\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", str(top / bottom)]
    return rng.choice([*written, f"{top}/{bottom + 1}"]), written[0]


def expressions(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(2, 30), rng.choice([2, 3, 5, 7])
    same = rf"{a} + \sqrt{{{b}}}"
    return rng.choice([rf"\sqrt{{{b}}} + {a}", rf"{a + 1} + \sqrt{{{b}}}"]), same


MADE_UP = {kind.__name__: kind for kind in (integers, numbers, expressions)}


def cpu_s(work: Callable[..., list[bool]], *args: object) -> tuple[float, list[bool]]:
    """Return CPU seconds, those of finished children too, and what `work` gave."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    begin = used()
    result = work(*args)
    return used() - begin, result


def ours(answers: list[str], references: list[str]) -> list[bool]:
    tasks = [Task(*task) for task in zip(answers, references, strict=True)]
    with verifier("math") as maths:
        return [verdict.outcome == "correct" for verdict in maths.verify(tasks)]


def plain(completions: list[str], references: list[str]) -> list[bool]:
    return [
        verify(parse(f"${reference}$"), parse(completion))
        for completion, reference in zip(completions, references, strict=True)
    ]


EDITS = (
    "terms turned", "no spaces", "loose spaces", r"\dfrac", r"\left and \right", "complex turned",
    "pair with spaces", "interval with spaces", "list turned", "unit in roman", "thin spaces",
    "one digit changed", "other sign", "as it is",
)  # fmt: skip
"""Edits of the references in "near"; a reference gets the first that fits, from a random one on."""


def near(reference: str, rng: random.Random) -> str:
    start = rng.randrange(len(EDITS))
    for name in EDITS[start:] + EDITS[:start]:
        answer = {**KEEP, **CHANGE}[name](reference, rng)
        if answer is not None:
            return answer
    raise AssertionError(reference)


def groups(size: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """Name kinds of pairs, and give the visible answers and the references of each."""
    for kind in MADE_UP.values():
        rng = random.Random(kind.__name__)
        pairs = [kind(rng) for _ in range(size)]
        visible = [rf"The answer is \boxed{{{answer}}}." for answer, _ in pairs]
        yield kind.__name__, visible, [reference for _, reference in pairs]
    if "STILLROOM_DATA" in os.environ:
        rng = random.Random("real")
        real = [r for r in references(Path(os.environ["STILLROOM_DATA"])) if not number(bare(r))]
        chosen = rng.sample(real, min(size, len(real) // 2))
        yield "real, near", [near(reference, rng) for reference in chosen], chosen
        others = rng.sample(real, len(chosen))
        yield "real, far", [rf"The answer is \boxed{{{other}}}." for other in others], chosen
        natural = [
            (one["response"], row["gold"])
            for row in rows("reasoning_gym_scored_answers")
            if len(row["gold"]) <= 60 and "\n" not in row["gold"]
            for one in row["completions"]
            if one["response"]
        ]
        picked = rng.sample(natural, min(size, len(natural)))
        yield "natural", [text for text, _ in picked], [gold for _, gold in picked]


def rows(name: str) -> list[dict[str, Any]]:
    path = Path(os.environ["STILLROOM_DATA"]) / "traces" / f"{name}.jsonl.zst"
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def thinkings(name: str, size: int, trace_kb: int) -> Iterator[str]:
    """Give the thinking of each pair."""
    rng = random.Random(name)
    if name in MADE_UP:
        for _ in range(size):
            yield thinking(rng, trace_kb * 1000)
    else:
        real = [split_thinking(row["response"]).reasoning for row in rows("kodcode_r1_code")]
        yield from (rng.choice([text for text in real if text]) for _ in range(size))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--pairs", type=int, default=300)
    options.add_argument("--trace-kb", type=int, default=20)
    options.add_argument("--only", help="one kind of pairs")
    args = options.parse_args()
    logging.disable()
    print(f"{args.pairs} pairs of each kind; CPU time, workers and their start included")
    print(f"{'references':12} {'text':22} {'math-verify':>13} {'stillroom':>11} {'ratio':>7} equal")
    for name, visible, expected in groups(args.pairs):
        if args.only not in (None, name):
            continue
        thought = thinkings(name, len(visible), args.trace_kb)
        traces = [join_thinking(*pair) for pair in zip(thought, visible, strict=True)]
        split = [split_thinking(trace).answer for trace in traces]
        plain(visible[:2], expected[:2])  # its first call compiles its expressions
        for label, theirs_from, ours_from in (
            ("answer", visible, visible),
            ("whole trace", traces, split),
            ("whole trace, unsplit", traces, traces),
        ):
            for cached in (bare, number, read):
                cached.cache_clear()
            theirs_s, theirs = cpu_s(plain, theirs_from, expected)
            ours_s, found = cpu_s(ours, ours_from, expected)
            equal = sum(one == other for one, other in zip(found, theirs, strict=True))
            assert equal == len(found) or name not in MADE_UP, f"{name}, {label}: verdicts"
            rates = f"{len(found) / theirs_s:11,.0f}/s {len(found) / ours_s:9,.0f}/s"
            share = f"{equal / len(found):6.1%}"
            print(f"{name:12} {label:22} {rates} {theirs_s / ours_s:6.1f}x {share}", flush=True)


if __name__ == "__main__":
    main()
