"""What a difference between recipes is worth: errors, intervals, and differences too small to see.

Three things vary between one run of a study and the next, and each has its own error:

- *sampling*: the same student answers the same question otherwise. More repeats make it smaller.
- *question*: other questions could have been asked. Only more questions make it smaller.
- *training seed*: other rows could have been drawn, in another order. Only more seeds make it
  smaller.

An interval here speaks of new questions of the same kind and of new seeds. Arms are compared on
the same questions and the same seeds, so what questions and seeds do to all arms alike cancels.

The variance of a difference between two arms is the sum of a seed part and a question part:

    V = 2 M / S  +  sum over benchmarks b of  w_b^2 max(0, Q_b - R_b) / (S I_b)

S seeds, I_b questions of benchmark b, w_b its weight. M is the mean square of (arm x seed) over all
arms of the study: arms are taken to be equally noisy, which three seeds of one arm alone could
never tell. Q_b and R_b are the mean squares of question and of residual in the two-way table
(seed x question) of differences. The seed part is at least what R_b alone would make of it.
Degrees of freedom follow Satterthwaite (1946). `scripts/check_intervals.py` measures how often such
intervals hold the truth; its table is in docs/statistics.md.

Sources: Miller 2024, arXiv 2411.00640 (paired differences, questions as the sample); Searle,
Casella and McCulloch 1992, chapter 4 (variance components); Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

Array: TypeAlias = npt.NDArray[np.float64]

FEW = 4
"""Below so many degrees of freedom the seed part is not trusted to be small: see `_seed_part`."""


@dataclass(frozen=True)
class Outcomes:
    """Every grade of a study, questions in one order for all arms.

    Attributes:
        arms: Names; the first is the control.
        seeds: Names of the seeds, the same for every arm.
        means: Benchmark to (arms, seeds, questions): share of repeats that were right, 0 to 1.
        sampling: Benchmark to (arms,): variance of a mean over repeats, averaged over seeds and
            questions; nan with one repeat.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    means: Mapping[str, Array]
    sampling: Mapping[str, Array]

    @staticmethod
    def of(grades: pl.DataFrame, arms: Sequence[str]) -> Outcomes:
        """Arrange grades.

        Args:
            grades: ``arm``, ``seed``, ``benchmark``, ``item``, ``repeat`` and ``score`` (0 to 1),
                a row for each attempt.
            arms: The arms in order, control first.

        Raises:
            ValueError: If an arm lacks a seed, a question or a repeat that another one has.
        """
        seeds = tuple(grades["seed"].unique().sort())
        means: dict[str, Array] = {}
        sampling: dict[str, Array] = {}
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
        return Outcomes(tuple(arms), seeds, means, sampling)


@dataclass(frozen=True)
class Estimate:
    """A number and how far it can be trusted.

    Attributes:
        value: The estimate.
        se: Standard error, all sources together.
        df: Degrees of freedom of ``se``.
        low: Lower end of the 95% interval.
        high: Upper end of the 95% interval.
    """

    value: float
    se: float
    df: float
    low: float
    high: float

    @staticmethod
    def of(value: float, variance: float, df: float, level: float = 0.95) -> Estimate:
        """Make the interval from a variance and its degrees of freedom."""
        se = math.sqrt(variance)
        half = float(stats.t.ppf(0.5 + level / 2, df)) * se if se else 0.0
        return Estimate(value, se, df, value - half, value + half)

    @staticmethod
    def share(value: float, variance: float, df: float, n: int) -> Estimate:
        """Make the interval of a share, which stays between 0 and 1 and holds near both.

        It is Wilson's, for the number of independent trials that would give this variance.

        Args:
            value: The share, 0 to 1.
            variance: Of the share.
            df: Degrees of freedom of the variance.
            n: Questions; counts as the trials where nothing varied at all.
        """
        trials = value * (1 - value) / variance if variance > 0 else n
        z = float(stats.t.ppf(0.975, df)) if math.isfinite(df) else 1.96
        low, high = _wilson(value, max(1.0, trials), z)
        return Estimate(value, math.sqrt(variance), df, low, high)

    def turned(self) -> Estimate:
        """Return the estimate of the difference the other way round."""
        return Estimate(-self.value, self.se, self.df, -self.high, -self.low)

    @property
    def p(self) -> float:
        """How often a true value of zero would look at least so different from zero."""
        if self.se == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value) / self.se, self.df))


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
        tables = _tables(outcomes, benchmark)
        for index, arm in enumerate(outcomes.arms):
            found.append(_score(outcomes, index, arm, benchmark, tables))
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
        tables = _tables(outcomes, benchmark)
        estimates = [_difference(tables, k) for k in range(1, len(outcomes.arms))]
        for arm, estimate, p in zip(
            outcomes.arms[1:], estimates, holm([e.p for e in estimates]), strict=True
        ):
            found.append(Difference(arm, benchmark, estimate, p, len(outcomes.seeds) > 1))
    return found


@dataclass(frozen=True)
class Noise:
    """What training alone does to an arm's mean on one seed, beside what it does to all arms.

    Attributes:
        mean_square: Variance of a cell (arm, seed) around arm and seed.
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
    tables = _tables(outcomes, None)
    k, against = outcomes.arms.index(arm), outcomes.arms.index(other)
    found = _difference(tables, k, against, noise)
    return Estimate.of(found.value, found.se**2, found.df, level)


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
    tables = _tables(outcomes, None)
    means = _pooled(tables).mean(axis=1)
    best = int(means.argmax())
    rest = [k for k in range(len(outcomes.arms)) if k != best]
    p_values = holm([_difference(tables, k, best).p for k in rest])
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
        ValueError: If there are no questions, seeds or arms to compare.
    """
    if not questions or min(questions) < 2 or seeds < 1 or arms < 2:
        raise ValueError("two or more questions per benchmark, one seed and two arms are needed")
    question_part = sum(question_sd**2 / n for n in questions) / len(questions) ** 2
    seed_part = 2 * seed_sd**2 / seeds if seeds > 1 else 0.0
    variance = question_part + seed_part
    terms = [(question_part, sum(questions) - len(questions))]
    if seed_part:
        terms.append((seed_part, (arms - 1) * (seeds - 1)))
    df = _satterthwaite(terms)
    edge = stats.t.ppf(1 - level / (arms - 1) / 2, df) + stats.t.ppf(power, df)
    return float(edge) * math.sqrt(variance)


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
    return max(0.0, middle - half), min(1.0, middle + half)


def _scopes(outcomes: Outcomes) -> list[str | None]:
    names = list(outcomes.means)
    return [None, *names] if len(names) > 1 else [None]


def _tables(outcomes: Outcomes, benchmark: str | None) -> list[Array]:
    return list(outcomes.means.values()) if benchmark is None else [outcomes.means[benchmark]]


def _pooled(tables: Sequence[Array]) -> Array:
    """Average over questions, then over benchmarks with equal weight: (arms, seeds)."""
    pooled: Array = np.mean([t.mean(axis=2) for t in tables], axis=0)
    return pooled


def _question_part(tables: Sequence[Array]) -> tuple[list[tuple[float, float]], float, float]:
    """Estimate what questions alone do to the mean over seeds and questions.

    Args:
        tables: For each benchmark (seeds, questions).

    Returns:
        For each benchmark its part of the variance and the degrees of freedom; then the variance
        that residuals alone give to the mean, and its degrees of freedom.
    """
    terms, residual, residual_df = [], 0.0, 0.0
    for table in tables:
        n_seeds, n_items = table.shape
        weight = 1 / len(tables) ** 2
        question = n_seeds * float(table.mean(axis=0).var(ddof=1))
        within = 0.0
        if n_seeds > 1:
            rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
            df = (n_seeds - 1) * (n_items - 1)
            within = float((rest**2).sum()) / df
            residual += weight * within / (n_seeds * n_items)
            residual_df += df
        part = weight * max(0.0, question - within) / (n_seeds * n_items)
        terms.append((part, float(n_items - 1)))
    return terms, residual, residual_df


def _seed_part(
    measured: float, df: float, residual: float, residual_df: float
) -> tuple[float, float]:
    """Choose between the measured seed part and what residuals alone would make of it.

    The larger one counts. If that is the residuals', its many degrees of freedom count with it, but
    only where the measured part had enough of its own to be believed.
    """
    if measured >= residual:
        return measured, df
    return residual, residual_df if df >= FEW else df


def _difference(
    tables: Sequence[Array], k: int, against: int = 0, noise: Noise | None = None
) -> Estimate:
    pooled = _pooled(tables)
    value = float((pooled[k] - pooled[against]).mean())
    n_arms, n_seeds = pooled.shape
    terms, residual, residual_df = _question_part([t[k] - t[against] for t in tables])
    if n_seeds > 1:
        if noise is None:
            rest = pooled - pooled.mean(0) - pooled.mean(1, keepdims=True) + pooled.mean()
            df = (n_arms - 1) * (n_seeds - 1)
            noise = Noise(float((rest**2).sum()) / df, df)
        terms.append(_seed_part(2 * noise.mean_square / n_seeds, noise.df, residual, residual_df))
    return Estimate.of(value, sum(v for v, _ in terms), _satterthwaite(terms))


def _score(
    outcomes: Outcomes, index: int, arm: str, benchmark: str | None, tables: Sequence[Array]
) -> Score:
    pooled = _pooled(tables)
    n_arms, n_seeds = pooled.shape
    own = [t[index] for t in tables]
    terms, residual, residual_df = _question_part(own)
    question_variance = (
        sum(float(t.mean(axis=0).var(ddof=1)) / t.shape[1] for t in own) / len(own) ** 2
    )
    seed_se = float("nan")
    if n_seeds > 1:
        # Each arm's own spread over seeds, averaged: seeds do not cancel here.
        spread = float(pooled.var(axis=1, ddof=1).mean()) / n_seeds
        seed_se = math.sqrt(spread)
        terms.append(_seed_part(spread, n_arms * (n_seeds - 1), residual, residual_df))
    names = [benchmark] if benchmark else list(outcomes.means)
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
        estimate=Estimate.share(
            float(pooled[index].mean()),
            sum(v for v, _ in terms),
            _satterthwaite(terms),
            sum(t.shape[1] for t in own),
        ),
        sampling_se=math.sqrt(sampling),
        question_se=math.sqrt(question_variance),
        seed_se=seed_se,
    )


def _satterthwaite(terms: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of mean squares (Satterthwaite 1946)."""
    total = sum(value for value, _ in terms)
    spread = sum(value**2 / df for value, df in terms)
    return max(1.0, total**2 / spread) if spread else math.inf
