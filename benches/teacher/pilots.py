"""How often the interval of a plan holds what the answers took, over simulated pilots.

    python benches/teacher/pilots.py [--pilots N]

Lengths are lognormal, some cut at a `max_tokens` as real ones are. Each pilot foretells the answers
that are missing; shown are the share of pilots whose 95% interval held their sum, the shares where
it was dearer and cheaper than that, and how far the interval reached, in the median. Beside it the
plain interval: the mean and 1.96 standard errors each way.
"""

import argparse
import math
import random
import statistics

from stillroom.steps.foretelling import Lengths

P99 = 2.3263


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pilots", type=int, default=4000)
    pilots = parser.parse_args().pilots
    print(f"{pilots:,} pilots each; share held (dearer, cheaper), reach in the median")
    for ratio, most in ((1, None), (2.4, None), (6, None), (10, None), (20, None), (10, 4.0)):
        for n, missing in ((10, 250), (50, 250), (50, 2500), (200, 2500)):
            one(ratio, most, n, missing, pilots)


def one(ratio: float, most: float | None, n: int, missing: int, pilots: int) -> None:
    draw = random.Random(f"{ratio}/{most}/{n}/{missing}")
    sigma = math.log(ratio) / P99
    ours: list[tuple[float, float, float, float]] = []
    plain: list[tuple[float, float, float, float]] = []
    for _ in range(pilots):
        lengths = [
            min(most or math.inf, draw.lognormvariate(0, sigma)) * 1000 for _ in range(n + missing)
        ]
        known, rest = lengths[:n], sum(lengths[n:])
        found = Lengths.of(n, *(sum(x**k for x in known) / n for k in (1, 2, 3)))
        told = found.mean * missing
        ours.append((*found.total(missing), rest, told))
        spread = 1.96 * found.deviation * math.sqrt(missing + missing**2 / n)
        plain.append((told - spread, told + spread, rest, told))
    cut = f", cut at {most:g} medians" if most else ""
    print(f"p99 of {ratio:g} medians{cut}; {n} known, {missing:,} missing")
    print(f"  bent  {words(ours)}")
    print(f"  plain {words(plain)}", flush=True)


def words(found: list[tuple[float, float, float, float]]) -> str:
    dearer = sum(rest > high for _, high, rest, _ in found) / len(found)
    cheaper = sum(rest < low for low, _, rest, _ in found) / len(found)
    down = statistics.median(low / told - 1 for low, _, _, told in found)
    up = statistics.median(high / told - 1 for _, high, _, told in found)
    return f"{1 - dearer - cheaper:6.1%} ({dearer:5.1%}, {cheaper:5.1%}) {down:+.0%} {up:+.0%}"


if __name__ == "__main__":
    main()
