"""Compare ways to make an interval over all noise of training; write a table of docs/statistics.md.

Usage: python scripts/compare_intervals.py [--write]

Nothing is simulated: a difference is normal, its seed part is a mean square with few degrees of
freedom, the part of the questions is known, and shares are computed by quadrature. Variances are in
units of what sampling alone makes of the seed part, so that a seed part of 1 is one without noise
of training, and questions alone make 1 + ``asked``.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from stillroom.study.statistics.errors import Error, Part

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
START, END = "<!-- computed by scripts/compare_intervals.py -->", "<!-- end of computed -->"

Array: TypeAlias = npt.NDArray[np.float64]
Half: TypeAlias = Callable[[Array], Array]
"""Half width of the interval for each measured seed part."""

DFS = (2, 3, 4, 8)
ASKED = (0.1, 0.5, 2.0, 9.0)
NOISE = np.array([0.0, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 1024])
"""Variance that training adds to the seed part."""

USUAL = 8.0
"""Widths are averaged over noise up to this: 0.2 on the logistic scale with 540 questions, three
seeds and two repeats, or four points of accuracy."""

Z = float(stats.norm.ppf(0.975))
MANY = 1e6


def ours(asked: float, df: int) -> Half:
    """Return the interval of `stillroom.study.statistics`."""
    least = Part(1 + asked, MANY)

    def half(seed: Array) -> Array:
        parts = [(Part(asked, MANY), Part(float(x), df)) for x in seed]
        return np.array([Error(part, least).half(0.95) for part in parts])

    return half


def cochran(asked: float, df: int) -> Half:
    """Return the same without the interval of the questions below it."""
    t = float(stats.t.ppf(0.975, df))
    return lambda seed: (Z * asked + t * seed) / np.sqrt(asked + seed)


def welch(asked: float, df: int) -> Half:
    """Return t with the degrees of freedom of Satterthwaite; the seed part as it was measured."""
    return lambda seed: _satterthwaite(asked, seed, df)


def raised(asked: float, df: int) -> Half:
    """Return the same with a seed part that is at least what sampling makes of it."""
    return lambda seed: _satterthwaite(asked, np.maximum(seed, 1), df)


def _satterthwaite(asked: float, seed: Array, df: int) -> Array:
    total = asked + seed
    found: Array = stats.t.ppf(0.975, df * (total / seed) ** 2) * np.sqrt(total)
    return found


def fiducial(asked: float, df: int) -> Half:
    """Return the interval of Behrens and Fisher."""
    true = np.exp(np.linspace(math.log(1e-6), math.log(1e9), 800))
    return _posterior(asked, df, true, np.ones_like(true))


def flat(asked: float, df: int) -> Half:
    """Return the interval for a prior that is flat in the logarithm of the seed part, above 1."""
    true = np.exp(np.linspace(0, math.log(1e9), 800))
    return _posterior(asked, df, true, np.ones_like(true))


def normal(asked: float, df: int) -> Half:
    """Return the interval for a half-normal prior of the noise, as large as that of sampling."""
    noise = np.linspace(1e-3, 6, 800)
    return _posterior(asked, df, 1 + noise**2, np.exp(-(noise**2) / 2))


def _posterior(asked: float, df: int, true: Array, prior: Array) -> Half:
    """Average over what the seed part may be, given what was measured."""
    measured = np.exp(np.linspace(math.log(1e-7), math.log(1e7), 400))
    log = -df / 2 * np.log(true) - df / 2 * measured[:, None] / true
    weight = np.exp(log - log.max(axis=1, keepdims=True)) * prior
    weight /= weight.sum(axis=1, keepdims=True)
    low, high = np.full(len(measured), 1e-3), np.full(len(measured), 1e7)
    for _ in range(50):
        middle = np.sqrt(low * high)
        beyond = (weight * 2 * special.ndtr(-middle[:, None] / np.sqrt(asked + true))).sum(axis=1)
        low, high = np.where(beyond > 0.05, middle, low), np.where(beyond > 0.05, high, middle)
    halves = np.log(high)
    return lambda seed: np.exp(np.interp(np.log(seed), np.log(measured), halves))


def freest(aim: str) -> Callable[[float, int], Half]:
    """Return the best interval of any form that holds 95% or more, whatever the noise.

    It is not narrower than the questions alone make it, and the t interval where noise is huge.

    Args:
        aim: What is best: ``narrowest`` in the mean, or ``flattest``, which holds no more than it
            must wherever it holds most.
    """

    def best(asked: float, df: int) -> Half:
        seed = np.exp(np.linspace(math.log(0.003), math.log(3e4), 90))
        edges = np.concatenate([[0], np.sqrt(seed[1:] * seed[:-1]), [np.inf]])
        noise = np.concatenate([[0], np.exp(np.linspace(math.log(0.1), math.log(2000), 26))])
        chance = np.diff(stats.chi2.cdf(df * edges / (1 + noise[:, None]), df))
        spread = np.sqrt(1 + asked + noise)
        cost = ((noise <= USUAL) / spread) @ chance
        t = float(stats.t.ppf(0.975, df)) * np.sqrt(seed)
        floor = Z * math.sqrt(1 + asked)
        bounds = [(b, b) if x > 5000 else (floor, None) for x, b in zip(seed, t, strict=True)]

        def held(half: Array) -> Array:
            return (chance * (2 * special.ndtr(half / spread[:, None]) - 1)).sum(axis=1)

        def slope(half: Array) -> Array:
            return chance * 2 * stats.norm.pdf(half / spread[:, None]) / spread[:, None]

        # The last variable is the highest share held, in percent.
        last = np.concatenate([np.zeros(len(seed)), [1.0]])
        weights = np.concatenate([cost, [0.0]]) if aim == "narrowest" else last
        column = np.zeros((len(noise), 1))
        limits = [
            {
                "type": "ineq",
                "fun": lambda x: 100 * held(x[:-1]) - 95,
                "jac": lambda x: np.hstack([100 * slope(x[:-1]), column]),
            },
            {
                "type": "ineq",
                "fun": lambda x: x[-1] - 100 * held(x[:-1]),
                "jac": lambda x: np.hstack([-100 * slope(x[:-1]), column + 1]),
            },
        ]
        start = np.maximum(floor, t) if aim == "narrowest" else freest("narrowest")(asked, df)(seed)
        found = optimize.minimize(
            lambda x: float(weights @ x), np.concatenate([start, [100.0]]),
            jac=lambda _: weights, bounds=[*bounds, (95.0, 100.0)], constraints=limits,
            method="SLSQP", options={"maxiter": 2000},
        )  # fmt: skip
        if not found.success:
            raise RuntimeError(found.message)
        return lambda x: np.interp(x, seed, found.x[:-1])

    return best


WAYS: dict[str, Callable[[float, int], Half]] = {
    "**the wider of two**": ours,
    "the first of the two": cochran,
    "Satterthwaite, seed part as measured": welch,
    "Satterthwaite, seed part at least that of sampling": raised,
    "Behrens and Fisher": fiducial,
    "prior flat in the logarithm of the seed part": flat,
    "prior half-normal, as large as sampling": normal,
    "any form that holds 95% or more, the narrowest": freest("narrowest"),
    "any form that holds 95% or more, the flattest": freest("flattest"),
}


def judged(half: Half, asked: float, df: int) -> tuple[Array, Array]:
    """Return, for each noise, the share held and the width in units of known noise."""
    luck = stats.chi2.ppf((np.arange(600) + 0.5) / 600, df) / df
    held, width = [], []
    for noise in NOISE:
        halves, spread = half((1 + noise) * luck), math.sqrt(1 + asked + noise)
        held.append((2 * special.ndtr(halves / spread) - 1).mean())
        width.append(halves.mean() / Z / spread)
    return np.array(held), np.array(width)


def measure(way: Callable[[float, int], Half]) -> list[str]:
    """Return the cells of one line: two for each number of degrees of freedom."""
    cells = []
    for df in DFS:
        found = [judged(way(asked, df), asked, df) for asked in ASKED]
        held = 100 * np.array([shares for shares, _ in found])
        width = np.mean([widths[NOISE <= USUAL] for _, widths in found])
        cells += [f"{held.min():.1f} to {held.max():.1f}", f"{width:.2f}"]
    return cells


def lucky(asked: float, df: int) -> str:
    """Say how often the first of the two is narrower than questions allow, without noise."""
    luck = stats.chi2.ppf((np.arange(6000) + 0.5) / 6000, df) / df
    halves, spread = cochran(asked, df)(luck), math.sqrt(1 + asked)
    missed, narrow = 2 * special.ndtr(-halves / spread), halves < Z * spread
    often, right = 100 * narrow.mean(), 100 * (1 - missed[narrow].mean())
    return (
        f"Without noise, with {df} degrees of freedom and a part of the questions of {asked:g}, "
        f"the\nfirst of the two is narrower than the questions allow in {often:.0f}% of studies. "
        f"There it\nholds {right:.0f}%, and "
        f"{100 * missed[narrow].sum() / missed.sum():.0f}% of all its misses are there."
    )


def main() -> None:
    """Print the table, and write it into the page if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    header = ["interval", *(cell for df in DFS for cell in (f"{df} df holds", "width"))]
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1)]
    for name, way in WAYS.items():
        lines.append(f"| {' | '.join([name, *measure(way)])} |")
        print(lines[-1], flush=True)
    lines += ["", lucky(ASKED[0], 2)]
    print(lines[-1])
    if given.write:
        text = PAGE.read_text("utf-8")
        before, rest = text.split(START)
        block = "\n".join([START, "", *lines, "", END])
        PAGE.write_text(before + block + rest.split(END, 1)[1], "utf-8")


if __name__ == "__main__":
    main()
