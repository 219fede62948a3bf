"""Compare our maths verifier with plain math-verify: pairs per second of CPU time, one core.

Three kinds of reference (integers, numbers of other kinds, expressions), each answered in a short
visible answer and at the end of a long trace (thinking and answer). math-verify gets what it is
usually given, the whole completion; ours gets the visible answer, which is kept apart from the
thinking when a completion arrives, and, to be fair, the whole completion in a second line. All
verdicts are checked to be the same before anything is timed. The worker's CPU time counts, and
so does its start.

Run: python benches/verify_math.py [--pairs 300] [--trace-kb 20]
"""

import argparse
import logging
import random
import resource
import time
from collections.abc import Callable

from math_verify import parse, verify

from stillroom.text.think import join_thinking, split_thinking
from stillroom.verifiers import Task, verifier

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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--pairs", type=int, default=300)
    options.add_argument("--trace-kb", type=int, default=20)
    args = options.parse_args()
    logging.disable()
    print(f"{'references':12} {'text':22} {'math-verify':>13} {'stillroom':>11} {'ratio':>7}")
    for kind in (integers, numbers, expressions):
        rng = random.Random(kind.__name__)
        pairs = [kind(rng) for _ in range(args.pairs)]
        references = [reference for _, reference in pairs]
        visible = [rf"The answer is \boxed{{{answer}}}." for answer, _ in pairs]
        traces = [join_thinking(thinking(rng, args.trace_kb * 1000), text) for text in visible]
        split = [split_thinking(trace).answer for trace in traces]
        plain(visible[:2], references[:2])  # its first call compiles its expressions
        for label, theirs_from, ours_from in (
            ("answer", visible, visible),
            ("whole trace", traces, split),
            ("whole trace, unsplit", traces, traces),
        ):
            theirs_s, theirs = cpu_s(plain, theirs_from, references)
            ours_s, found = cpu_s(ours, ours_from, references)
            assert found == theirs, f"{kind.__name__}, {label}: verdicts differ"
            rates = f"{args.pairs / theirs_s:11,.0f}/s {args.pairs / ours_s:9,.0f}/s"
            print(f"{kind.__name__:12} {label:22} {rates} {theirs_s / ours_s:6.1f}x")


if __name__ == "__main__":
    main()
