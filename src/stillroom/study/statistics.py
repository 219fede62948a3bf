"""What a difference between recipes is worth: errors, intervals, and differences too small to see.

Three things vary between one run of a study and the next, and each has its own error:

- *sampling*: the same student answers the same question otherwise. More repeats make it smaller.
- *question*: other questions could have been asked. Only more questions make it smaller.
- *training seed*: other rows could have been drawn, in another order. Only more seeds make it
  smaller.

An interval here speaks of new questions of the same kind and of new seeds. Arms are compared on
the same questions and the same seeds, so what questions and seeds do to all arms alike cancels.

The variance of a difference between two arms has two parts, which are estimated apart:

    V  =  (q - 2 r / S)  +  2 M / S

S is the number of seeds. M is the mean square of (arm x seed), over all arms of the study: what
training does to a student's mean, and what sampling does to it as well. Arms are taken to be
equally noisy, which three seeds of one arm alone could never tell. Where M has fewer than five
degrees of freedom, (arms - 1) x (seeds - 1), the mean square of seeds within arms stands in its
place, with arms x (seeds - 1): what a seed does to all arms alike is then counted as noise, which
makes an interval too wide and never too narrow, and costs less than to know the noise so badly.
r is what sampling alone makes
of M, from the mean square of (arm x seed x question); q is the usual squared error of a paired mean
over questions. q has all of the sampling in it, and so has M; the difference of the two counts it
once. M may by luck be less than r. It is not raised then: M has the degrees of freedom of its mean
square, all of them, only if it is left as it is.

The interval is the wider of two:

- value +- t sqrt(V), where t is the mean of the quantiles of both parts, weighted by the parts
  (Cochran and Cox 1950): the part of the questions has many degrees of freedom, that of the seeds
  few.
- value +- t sqrt(q): what the questions alone would allow if training had no noise. Where few seeds
  agree by luck, the first one is narrower than that, and wrong.

Where hardly anything is right, or wrong, questions agree by luck too. So q is at least what one
attempt more that is right would make of it, and one more that is wrong (after Bonett and Price
2012, who add a pair of each kind).

A p value is one less the level of the interval that just leaves zero out. The error of a score has
one more part, what a seed does to all arms. `scripts/check_intervals.py` measures how often such
intervals hold the truth; its tables are in docs/statistics.md.

Sources: Miller 2024, arXiv 2411.00640 (paired differences, questions as the sample); Clark 1973,
Journal of Verbal Learning and Verbal Behavior 12 (V, for subjects and items); Cochran and Cox 1950,
Experimental Designs, and Cochran 1964, Biometrics 20 (t); Searle, Casella and McCulloch 1992,
chapter 4 (variance components); Bonett and Price 2012, Journal of Educational and Behavioral
Statistics 37 (paired shares); Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import optimize, special, stats

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Every grade of a study, questions in one order for all arms.

    Attributes:
        arms: Names; the first is the control.
        seeds: Names of the seeds, the same for every arm.
        means: Benchmark to (arms, seeds, questions): share of repeats that were right, 0 to 1.
        sampling: Benchmark to (arms,): variance of a mean over repeats, averaged over seeds and
            questions; nan with one repeat.
        attempt: Benchmark to what one attempt more that is right adds to the mean of an arm over
            seeds and repeats at its question; none where scores have no bounds.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    means: Mapping[str, Array]
    sampling: Mapping[str, Array]
    attempt: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(grades: pl.DataFrame, arms: Sequence[str], *, bounded: bool = True) -> Outcomes:
        """Arrange grades.

        Args:
            grades: ``arm``, ``seed``, ``benchmark``, ``item``, ``repeat`` and ``score``, a row for
                each attempt.
            arms: The arms in order, control first.
            bounded: Whether scores are 0 to 1, as all grades are.

        Raises:
            ValueError: If an arm lacks a seed, a question or a repeat that another one has.
        """
        seeds = tuple(grades["seed"].unique().sort())
        means: dict[str, Array] = {}
        sampling: dict[str, Array] = {}
        attempt: dict[str, float] = {}
        for benchmark in grades["benchmark"].unique(maintain_order=True):
            here = grades.filter(pl.col("benchmark") == benchmark)
            items = here["item"].unique().sort()
            cells = here.group_by("arm", "seed", "item").agg(
                pl.col("score").mean().alias("mean"),
                pl.col("score").var(ddof=1).alias("variance"),
                pl.len().alias("repeats"),
            )
            grid = pl.DataFrame({"arm": list(arms)}).join(
                pl.DataFrame({"seed": seeds}), how="cross"
            )
            grid = grid.join(items.to_frame(), how="cross")
            full = grid.join(cells, on=["arm", "seed", "item"], how="left", maintain_order="left")
            if full["repeats"].n_unique() != 1 or full["repeats"].null_count():
                raise ValueError(f"{benchmark}: not every arm has each seed, question and repeat")
            shape = (len(arms), len(seeds), len(items))
            means[benchmark] = full["mean"].to_numpy().reshape(shape)
            repeats = int(full["repeats"][0])
            variance = full["variance"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            sampling[benchmark] = variance.reshape(shape).mean(axis=(1, 2)) / repeats
            if bounded:
                attempt[benchmark] = 1 / (len(seeds) * repeats)
        return Outcomes(tuple(arms), seeds, means, sampling, attempt)


class Part(NamedTuple):
    """A part of a variance, with the degrees of freedom of its estimate, above 0."""

    variance: float
    df: float


@dataclass(frozen=True)
class Error:
    """How far a mean may be off.

    Attributes:
        parts: Of its variance, each estimated apart from the others.
        least: What questions alone do; no interval is narrower than that makes it.
    """

    parts: tuple[Part, ...]
    least: Part

    @property
    def se(self) -> float:
        """Standard error."""
        return math.sqrt(max(sum(part.variance for part in self.parts), self.least.variance))

    def half(self, level: float) -> float:
        """Return half the width of the interval.

        Args:
            level: Share of intervals that hold the truth, 0 to 1.
        """
        return self._beyond((1 - level) / 2)

    def p(self, distance: float) -> float:
        """Return how often a mean would be at least so far off, either way.

        Args:
            distance: Not negative.
        """
        if distance <= 0:
            return 1.0
        if self._beyond(SMALLEST) <= distance:
            return 0.0
        ends = math.log(SMALLEST), math.log(0.5)
        found = optimize.brentq(lambda tail: self._beyond(math.exp(tail)) - distance, *ends)
        return min(1.0, 2 * math.exp(float(found)))

    def _beyond(self, tail: float) -> float:
        """Return the distance that is passed on one side so often."""
        total = sum(part.variance for part in self.parts)
        weighted = sum(part.variance * _t(tail, part.df) for part in self.parts)
        both = weighted / math.sqrt(total) if total else 0.0
        return max(both, _t(tail, self.least.df) * math.sqrt(self.least.variance))


SMALLEST = 1e-40
"""A smaller chance is 0: quantiles of t are not computed well so far out."""


@dataclass(frozen=True)
class Estimate:
    """A number and how far it can be trusted.

    Attributes:
        value: The estimate.
        se: Standard error, all sources together.
        low: Lower end of the interval, of 95% unless another level was asked for.
        high: Upper end of it.
        p: How often a true value of zero would look at least so different from zero; nan for a
            share.
    """

    value: float
    se: float
    low: float
    high: float
    p: float

    @staticmethod
    def of(value: float, error: Error, level: float = 0.95, *, most: float = math.inf) -> Estimate:
        """Make the interval of a number that may be below zero.

        Args:
            value: The number.
            error: How far it may be off.
            level: Share of intervals that hold the truth.
            most: The truth is no farther from zero.
        """
        half = error.half(level)
        low, high = max(-most, value - half), min(most, value + half)
        return Estimate(value, error.se, low, high, error.p(abs(value)))

    @staticmethod
    def share(value: float, error: Error, n: float) -> Estimate:
        """Make the interval of a share, which stays between 0 and 1 and holds near both.

        It is Wilson's, for the number of independent trials that would give this error.

        Args:
            value: The share, 0 to 1.
            error: Of the share.
            n: Questions; they count as the trials where all were right, or all wrong.
        """
        trials, quantile = n, _t(0.025, math.inf)
        if error.se and 0 < value < 1:
            trials = max(1.0, value * (1 - value) / error.se**2)
            quantile = error.half(0.95) / error.se
        low, high = _wilson(value, trials, quantile)
        return Estimate(value, error.se, low, high, math.nan)

    def turned(self) -> Estimate:
        """Return the estimate of the difference the other way round."""
        return Estimate(-self.value, self.se, -self.high, -self.low, self.p)


@dataclass(frozen=True)
class Score:
    """The accuracy of one arm on one benchmark.

    Attributes:
        arm: Its name.
        benchmark: Its name; None for the mean over benchmarks.
        estimate: For new questions and new seeds.
        sampling_se: Error if only the student's sampling varied; nan with one repeat.
        question_se: Error if sampling and questions varied; the usual error bar of a benchmark.
        seed_se: Error if only seeds varied; nan with one seed.
    """

    arm: str
    benchmark: str | None
    estimate: Estimate
    sampling_se: float
    question_se: float
    seed_se: float


@dataclass(frozen=True)
class Difference:
    """An arm against the control.

    Attributes:
        arm: Its name.
        benchmark: Its name; None for the mean over benchmarks.
        estimate: Arm minus control.
        p: Two-sided, corrected by Holm over the arms of this benchmark.
        measured_seeds: Whether two or more seeds were run; without them the interval leaves the
            training noise out and is too narrow.
    """

    arm: str
    benchmark: str | None
    estimate: Estimate
    p: float
    measured_seeds: bool

    def verdict(self, level: float = 0.05) -> int:
        """Return 1 if the arm is better, -1 if it is worse, and 0 if no difference was found."""
        return 0 if self.p > level else (1 if self.estimate.value > 0 else -1)


def scores(outcomes: Outcomes) -> list[Score]:
    """Estimate the accuracy of every arm: pooled over benchmarks first, then on each."""
    found = []
    for benchmark in _scopes(outcomes):
        for index, arm in enumerate(outcomes.arms):
            found.append(_score(outcomes, index, arm, benchmark))
    return found


def means(outcomes: Outcomes) -> dict[str, float]:
    """Return the mean of every arm over seeds and questions, benchmarks with equal weight."""
    pooled = _pooled(_tables(outcomes, None)).mean(axis=1)
    return {arm: float(value) for arm, value in zip(outcomes.arms, pooled, strict=True)}


def differences(outcomes: Outcomes) -> list[Difference]:
    """Compare every arm with the first: pooled over benchmarks first, then on each.

    Correction for many comparisons is within a benchmark. The pooled comparison is the one that a
    study is about; those on single benchmarks explain it.
    """
    found: list[Difference] = []
    for benchmark in _scopes(outcomes):
        pairs = _Pairs.of(outcomes, benchmark)
        estimates = [pairs.estimate(k, 0) for k in range(1, len(outcomes.arms))]
        for arm, estimate, p in zip(
            outcomes.arms[1:], estimates, holm([e.p for e in estimates]), strict=True
        ):
            found.append(Difference(arm, benchmark, estimate, p, len(outcomes.seeds) > 1))
    return found


@dataclass(frozen=True)
class Noise:
    """What training alone does to an arm's mean on one seed.

    Attributes:
        mean_square: Variance of a cell (arm, seed) around arm and seed, or around the arm.
        df: Degrees of freedom of it; 0 if nothing is known.
    """

    mean_square: float
    df: float


def by_seed(outcomes: Outcomes) -> dict[str, list[float]]:
    """Return the mean of every arm on each seed, benchmarks with equal weight."""
    pooled = _pooled(_tables(outcomes, None))
    return {arm: list(map(float, row)) for arm, row in zip(outcomes.arms, pooled, strict=True)}


def training_noise(means: Mapping[str, Sequence[float]]) -> Noise:
    """Estimate the noise of training from arms that ran different numbers of seeds.

    Args:
        means: Arm to its mean on the seeds 0, 1, ...; arms may stop early.

    Returns:
        The residual mean square of the additive model arm + seed.
    """
    cells = [(k, s, value) for k, row in enumerate(means.values()) for s, value in enumerate(row)]
    arms, seeds = len(means), max(len(row) for row in means.values())
    df = len(cells) - arms - seeds + 1
    if df < 1:
        return Noise(0.0, 0.0)
    design = np.zeros((len(cells), arms + seeds))
    for number, (k, s, _) in enumerate(cells):
        design[number, k] = design[number, arms + s] = 1
    values = np.array([value for _, _, value in cells])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return Noise(float((rest**2).sum()) / df, float(df))


def between(
    outcomes: Outcomes, arm: str, other: str, *, level: float = 0.95, noise: Noise | None = None
) -> Estimate:
    """Compare two arms, pooled over benchmarks: the first minus the other.

    Args:
        outcomes: Of all arms.
        arm: Its name.
        other: The other's name.
        level: Share of intervals that hold the truth.
        noise: Of training, where more is known of it than these outcomes say.
    """
    k, against = outcomes.arms.index(arm), outcomes.arms.index(other)
    return _Pairs.of(outcomes, None, noise).estimate(k, against, level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number: none is too small by chance more often than it says.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: Holm 1979.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def decision_accuracy(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the share of pairs of arms that two outcomes put in the same order, 0 to 1.

    It says how far decisions by one outcome, or at one scale, are those of another. Ties count
    half; nan with fewer than two arms in common.

    Source: DataDecide, arXiv 2504.11393.

    >>> decision_accuracy({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 2})
    0.6666666666666666
    """
    arms = [arm for arm in one if arm in other]
    pairs = [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]
    agree = 0.0
    for a, b in pairs:
        product = (one[a] - one[b]) * (other[a] - other[b])
        agree += 1.0 if product > 0 else 0.5 if product == 0 else 0.0
    return agree / len(pairs) if pairs else math.nan


def not_worse(outcomes: Outcomes, level: float = 0.05) -> list[str]:
    """Name the arms that cannot be told from the best one, the best one first.

    Every arm is compared with the arm of the highest mean, corrected by Holm.
    """
    pairs = _Pairs.of(outcomes, None)
    means = pairs.pooled.mean(axis=1)
    best = int(means.argmax())
    rest = [k for k in range(len(outcomes.arms)) if k != best]
    p_values = holm([pairs.estimate(k, best).p for k in rest])
    tied = [k for k, p in zip(rest, p_values, strict=True) if p > level]
    return [outcomes.arms[k] for k in [best, *sorted(tied, key=lambda k: -means[k])]]


def within_two_errors(outcomes: Outcomes) -> list[str]:
    """Name the arms within two standard errors of the best, as the paper marks them.

    The error is that of the best arm's own mean. It is no test: it takes neither pairing nor the
    number of arms into account.

    Source: OpenThoughts, arXiv 2506.04178, tables of section 3 (entries in bold).
    """
    pooled = [s for s in scores(outcomes) if s.benchmark is None]
    best = max(pooled, key=lambda s: s.estimate.value)
    border = best.estimate.value - 2 * best.estimate.se
    return [s.arm for s in pooled if s.estimate.value >= border]


def detectable(
    questions: Sequence[int],
    seeds: int,
    *,
    arms: int = 2,
    question_sd: float = 0.25,
    seed_sd: float = 0.01,
    power: float = 0.8,
    level: float = 0.05,
) -> float:
    """Return the smallest true difference that a study would probably see, 0 to 1.

    Args:
        questions: Questions of each benchmark; benchmarks have equal weight.
        seeds: Seeds of each arm.
        arms: Arms in all, control included. The level is divided by the comparisons, as in the
            first step of Holm.
        question_sd: Standard deviation over questions of the difference between two arms, each a
            mean over repeats. 0.25 was measured for checkpoints of a 3B model.
        seed_sd: Standard deviation of one arm's mean over seeds.
        power: Share of studies that should see it, 0 to 1.
        level: Share of studies without a difference that may claim one, 0 to 1.

    Raises:
        ValueError: As `foreseen`.
    """
    error = foreseen(questions, seeds, arms=arms, question_sd=question_sd, seed_sd=seed_sd)
    return seen_through(error, arms=arms, power=power, level=level)


def seen_through(error: Error, *, arms: int = 2, power: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest true difference that is probably seen, 0 to 1.

    Args:
        error: Of a difference, of questions first and then of training.
        arms: As in `detectable`.
        power: As in `detectable`.
        level: As in `detectable`.
    """
    own = 1 - level / (arms - 1)
    # The estimate of the training noise is itself a matter of luck, and the interval with it.
    halves = [error.half(own)]
    if len(error.parts) > 1:
        asked, training = error.parts
        draws = stats.chi2.ppf((np.arange(200) + 0.5) / 200, training.df) / training.df
        lucky = [Part(training.variance * float(draw), training.df) for draw in draws]
        halves = [Error((asked, part), error.least).half(own) for part in lucky]

    def seen(difference: float) -> float:
        return float(special.ndtr((difference - np.array(halves)) / error.se).mean())

    return float(optimize.brentq(lambda d: seen(d) - power, 0.0, max(halves) + 10 * error.se))


def foretold(outcomes: Outcomes, seeds: int) -> Error:
    """Return the error that a difference to the control would have with other seeds.

    Training, sampling and questions are as noisy as these outcomes show, in the mean over arms.

    Args:
        outcomes: Of two arms or more, and two seeds or more.
        seeds: Seeds of each arm, 2 or more.
    """
    pairs = _Pairs.of(outcomes, None)
    errors = [pairs.error(k, 0) for k in range(1, len(outcomes.arms))]
    asked, training = (
        Part(sum(e.parts[i].variance for e in errors) / len(errors), errors[0].parts[i].df)
        for i in (0, 1)
    )
    sampled = 2 * pairs.sampling / seeds
    trained = training.variance * len(outcomes.seeds) / seeds
    parts = asked, Part(trained, _degrees(len(outcomes.arms), seeds))
    return Error(parts, Part(asked.variance + sampled, asked.df))


def foreseen(
    questions: Sequence[int], seeds: int, *, arms: int, question_sd: float, seed_sd: float
) -> Error:
    """Return the error of a difference of two arms that a study will probably have.

    Args:
        questions: Questions of each benchmark.
        seeds: Seeds of each arm.
        arms: Arms in all.
        question_sd: As in `detectable`.
        seed_sd: As in `detectable`.

    Raises:
        ValueError: If there are no questions, seeds or arms to compare.
    """
    if not questions or min(questions) < 2 or seeds < 1 or arms < 2:
        raise ValueError("two or more questions per benchmark, one seed and two arms are needed")
    variances = [(question_sd / len(questions)) ** 2 / n for n in questions]
    asked = _together([Part(v, n - 1) for v, n in zip(variances, questions, strict=True)])
    if seeds == 1:
        return Error((asked,), asked)
    return Error((asked, Part(2 * seed_sd**2 / seeds, _degrees(arms, seeds))), asked)


def wilson(right: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share, which holds near 0 and 1 too.

    Args:
        right: Successes, 0 to n.
        n: Independent trials, at least 1.
        level: Share of intervals that hold the truth.

    Source: Wilson 1927.

    >>> tuple(round(edge, 3) for edge in wilson(0, 30))
    (0.0, 0.114)
    """
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"{right} of {n}; expected 0 to n of at least 1")
    return _wilson(right / n, n, float(stats.norm.ppf(0.5 + level / 2)))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the chance that at least one of k draws is correct.

    Unbiased: the mean over all ways to choose k of the n draws.

    Args:
        n: Draws taken per item; n >= k.
        c: Correct draws among them; 0 <= c <= n.
        k: Draws allowed; at least 1.

    Raises:
        ValueError: If the numbers do not fit together.

    Source: Chen et al. 2021, eq. 1 (arXiv 2107.03374).

    >>> pass_at_k(n=4, c=1, k=2)
    0.5
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"n={n}, c={c}, k={k}; expected 1 <= k <= n and 0 <= c <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Grade a majority vote over the draws of one item, ties split evenly.

    Args:
        answers: What each draw answered, equal answers equally written; None for no answer, which
            has no vote.
        right: Whether each draw is correct.

    Returns:
        The share of the leading answers that are correct, 0 to 1; 0 if nobody answered.

    >>> majority(["4", "4", "5", "5", None], [True, True, False, False, False])
    0.5
    """
    votes: dict[str, int] = {}
    correct: dict[str, bool] = {}
    for answer, is_right in zip(answers, right, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            correct[answer] = correct.get(answer, False) or is_right
    leading = [a for a, n in votes.items() if n == max(votes.values())]
    return sum(correct[a] for a in leading) / len(leading) if leading else 0.0


def bootstrap(
    table: Array, *, draws: int = 2_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return an interval of a mean by drawing seeds and questions anew, with replacement.

    For outcomes of which the variance formula above says nothing. Deviations of seeds are
    stretched by sqrt(S / (S - 1)), because S drawn of S vary too little; with fewer than five seeds
    it still covers less than it says, and `differences` is to be preferred.

    Args:
        table: (seeds, questions) of values or of paired differences.
        draws: Tables drawn.
        seed: Of the drawing.
        level: Share of intervals that should hold the truth.
    """
    rng = np.random.default_rng(seed)
    n_seeds, n_items = table.shape
    by_seed = table.mean(axis=1, keepdims=True)
    stretch = math.sqrt(n_seeds / (n_seeds - 1)) if n_seeds > 1 else 1.0
    table = table - by_seed + by_seed.mean() + (by_seed - by_seed.mean()) * stretch
    means = np.empty(draws)
    for i in range(draws):
        rows = rng.integers(n_seeds, size=n_seeds)
        columns = rng.integers(n_items, size=n_items)
        means[i] = table[rows].mean(axis=0)[columns].mean()
    edge = (1 - level) / 2
    low, high = np.quantile(means, [edge, 1 - edge])
    return float(low), float(high)


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the borders the two are equal but for rounding.
    return (
        0.0 if share == 0 else max(0.0, middle - half),
        1.0 if share == 1 else min(1.0, middle + half),
    )


def _scopes(outcomes: Outcomes) -> list[str | None]:
    names = list(outcomes.means)
    return [None, *names] if len(names) > 1 else [None]


def _names(outcomes: Outcomes, benchmark: str | None) -> list[str]:
    return list(outcomes.means) if benchmark is None else [benchmark]


def _tables(outcomes: Outcomes, benchmark: str | None) -> list[Array]:
    return [outcomes.means[name] for name in _names(outcomes, benchmark)]


def _attempts(outcomes: Outcomes, benchmark: str | None) -> list[float]:
    return [outcomes.attempt.get(name, 0.0) for name in _names(outcomes, benchmark)]


def _pooled(tables: Sequence[Array]) -> Array:
    """Average over questions, then over benchmarks with equal weight: (arms, seeds)."""
    pooled: Array = np.mean([t.mean(axis=2) for t in tables], axis=0)
    return pooled


def _asked(tables: Sequence[Array], attempts: Sequence[float]) -> Part:
    """Estimate the variance of a mean over questions, if the same seeds were taken again.

    It is no less than if, at two questions of a benchmark, one attempt more were right, and one
    more were wrong: questions that were all answered alike do not say that the next one will be.

    Args:
        tables: For each benchmark (seeds, questions).
        attempts: For each benchmark what an attempt adds; see `Outcomes`.
    """
    parts = []
    for table, attempt in zip(tables, attempts, strict=True):
        n = table.shape[1]
        variance = max(float(table.mean(axis=0).var(ddof=1)) / n, 2 * (attempt / n) ** 2)
        parts.append(Part(variance / len(tables) ** 2, n - 1))
    return _together(parts)


FEW = 5
"""Degrees of freedom of (arm x seed) that are too few to leave out what seeds do to all arms."""


def _degrees(arms: int, seeds: int) -> int:
    """Return the degrees of freedom of the noise of training, for differences."""
    paired = (arms - 1) * (seeds - 1)
    return paired if paired >= FEW else arms * (seeds - 1)


def _noise(pooled: Array) -> Noise:
    """Return what training does to an arm's mean on one seed, for differences.

    Args:
        pooled: (arms, seeds), two or more of each.
    """
    paired = _training(pooled)
    if paired.df >= FEW:
        return paired
    return Noise(float(pooled.var(axis=1, ddof=1).mean()), _degrees(*pooled.shape))


def _together(parts: Sequence[Part]) -> Part:
    """Add parts of many degrees of freedom up (Satterthwaite 1946)."""
    total = sum(part.variance for part in parts)
    spread = sum(part.variance**2 / part.df for part in parts)
    return Part(total, total**2 / spread if spread else math.inf)


def _training(pooled: Array) -> Noise:
    """Return the mean square of (arm x seed).

    Args:
        pooled: (arms, seeds), two or more of each.
    """
    rest = pooled - pooled.mean(0) - pooled.mean(1, keepdims=True) + pooled.mean()
    df = (pooled.shape[0] - 1) * (pooled.shape[1] - 1)
    return Noise(float((rest**2).sum()) / df, df)


def _sampling(tables: Sequence[Array], *, paired: bool) -> float:
    """Estimate what sampling alone adds to the variance of one student's mean.

    Args:
        tables: For each benchmark (arms, seeds, questions), two or more seeds.
        paired: Whether to leave out what a seed does to a question in all arms alike.
    """
    total = 0.0
    for table in tables:
        n_arms, n_seeds, n_items = table.shape
        by_item, by_seed = table.mean(axis=1, keepdims=True), table.mean(axis=2, keepdims=True)
        rest = table - by_item - by_seed + table.mean(axis=(1, 2), keepdims=True)
        if paired:
            rest = rest - rest.mean(axis=0)
        df = (n_arms - paired) * (n_seeds - 1) * (n_items - 1)
        total += float((rest**2).sum()) / df / n_items / len(tables) ** 2
    return total


@dataclass(frozen=True)
class _Pairs:
    """Comparisons of two arms on the same tables.

    Attributes:
        tables: For each benchmark (arms, seeds, questions).
        attempts: For each benchmark what an attempt adds; see `Outcomes`.
        pooled: Over benchmarks and questions: (arms, seeds).
        noise: Of training; None with one seed.
        sampling: What it is without training; 0 with one seed.
    """

    tables: Sequence[Array]
    attempts: Sequence[float]
    pooled: Array
    noise: Noise | None
    sampling: float

    @staticmethod
    def of(outcomes: Outcomes, benchmark: str | None, noise: Noise | None = None) -> _Pairs:
        """Estimate from all arms what two of them share."""
        tables, attempts = _tables(outcomes, benchmark), _attempts(outcomes, benchmark)
        pooled = _pooled(tables)
        if pooled.shape[1] == 1:
            return _Pairs(tables, attempts, pooled, None, 0.0)
        sampling = _sampling(tables, paired=True)
        return _Pairs(tables, attempts, pooled, noise or _noise(pooled), sampling)

    def estimate(self, k: int, against: int, level: float = 0.95) -> Estimate:
        """Return the difference of two arms, with its interval."""
        value = float((self.pooled[k] - self.pooled[against]).mean())
        most = 1.0 if all(self.attempts) else math.inf
        return Estimate.of(value, self.error(k, against), level, most=most)

    def error(self, k: int, against: int) -> Error:
        """Return how far the difference of two arms may be off."""
        asked = _asked([t[k] - t[against] for t in self.tables], self.attempts)
        if self.noise is None:
            return Error((asked,), asked)
        n_seeds = self.pooled.shape[1]
        alone = max(0.0, asked.variance - 2 * self.sampling / n_seeds)
        training = Part(2 * self.noise.mean_square / n_seeds, self.noise.df)
        return Error((Part(alone, asked.df), training), asked)


def _score(outcomes: Outcomes, index: int, arm: str, benchmark: str | None) -> Score:
    tables, names = _tables(outcomes, benchmark), _names(outcomes, benchmark)
    pooled = _pooled(tables)
    n_arms, n_seeds = pooled.shape
    own = [t[index] for t in tables]
    asked = _asked(own, _attempts(outcomes, benchmark))
    error, seed_se = Error((asked,), asked), float("nan")
    if n_seeds > 1:
        # What a seed does to all arms does not cancel here. The two parts add up to the spread over
        # seeds of one arm, in the mean over arms.
        parts = [Part(float(pooled.mean(axis=0).var(ddof=1)) / n_seeds, n_seeds - 1)]
        if n_arms > 1:
            noise = _training(pooled)
            parts.append(Part((1 - 1 / n_arms) * noise.mean_square / n_seeds, noise.df))
        alone = max(0.0, asked.variance - _sampling(tables, paired=False) / n_seeds)
        error = Error((Part(alone, asked.df), _together(parts)), asked)
        seed_se = math.sqrt(sum(part.variance for part in parts))
    # Benchmarks weigh alike, so that questions of a small one count for more than one each.
    questions = len(own) ** 2 / sum(1 / t.shape[1] for t in own)
    sampling = (
        sum(
            float(outcomes.sampling[name][index]) / outcomes.means[name][index].size
            for name in names
        )
        / len(names) ** 2
    )
    return Score(
        arm=arm,
        benchmark=benchmark,
        estimate=Estimate.share(float(pooled[index].mean()), error, questions),
        sampling_se=math.sqrt(sampling),
        question_se=math.sqrt(asked.variance),
        seed_se=seed_se,
    )


def _t(tail: float, df: float) -> float:
    """Return the quantile of Student's t that is passed so often."""
    return -float(special.stdtrit(df, tail))
