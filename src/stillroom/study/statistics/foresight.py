"""Which differences a study would see, before it is run and with more seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

from stillroom.study.statistics.errors import Error, Part, together
from stillroom.study.statistics.noise import Pairs, degrees
from stillroom.study.statistics.outcomes import Outcomes


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
    pairs = Pairs.of(outcomes, None)
    errors = [pairs.error(k, 0) for k in range(1, len(outcomes.arms))]
    asked, training = (
        Part(sum(e.parts[i].variance for e in errors) / len(errors), errors[0].parts[i].df)
        for i in (0, 1)
    )
    sampled = 2 * pairs.sampling / seeds
    trained = training.variance * len(outcomes.seeds) / seeds
    parts = asked, Part(trained, degrees(len(outcomes.arms), seeds))
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
    asked = together([Part(v, n - 1) for v, n in zip(variances, questions, strict=True)])
    if seeds == 1:
        return Error((asked,), asked)
    return Error((asked, Part(2 * seed_sd**2 / seeds, degrees(arms, seeds))), asked)
