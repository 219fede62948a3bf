"""From weights of a mixture to an outcome, by regression; and the weights that promise most.

Three forms are tried, each a ridge regression with an intercept: on the weights themselves; on
their logarithms, where more of a source helps ever less; and on the weights and their products,
where sources help each other. Form and penalty are those that predict best a mixture which they did
not see. How good that is is measured with mixtures that had no part in the choice either: it is
made again without each of them (nested leave-one-out).

What is covered: luck in the choice of form and penalty, in the errors of prediction and in the
bootstrap. What is not: mixtures unlike those drawn, where any form may be wrong; none is proposed
there.

Sources: RegMix, arXiv 2407.01492 (regression over random mixtures; the mean of the best predicted
draws is proposed); Hoerl and Kennard 1970 (ridge); Allen 1974 (PRESS, errors of leave-one-out in
closed form).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

Array: TypeAlias = npt.NDArray[np.float64]

LEAST = 0.01
"""Added to weights before the logarithm: a source without rows is not infinitely bad."""
PENALTIES = tuple(10.0**power for power in range(-4, 3))
CANDIDATES, BEST = 10_000, 100
"""Mixtures whose outcome is predicted, and how many of the best are averaged."""
RESAMPLES = 200


def _linear(weights: Array) -> Array:
    return weights


def _logarithmic(weights: Array) -> Array:
    logarithms: Array = np.log(weights + LEAST)
    return logarithms


def _quadratic(weights: Array) -> Array:
    one, other = np.triu_indices(weights.shape[1], k=1)
    return np.hstack([weights, weights[:, one] * weights[:, other]])


FORMS: Mapping[str, Callable[[Array], Array]] = {
    "linear": _linear,
    "logarithmic": _logarithmic,
    "quadratic": _quadratic,
}


@dataclass(frozen=True)
class Fit:
    """A regression that was fitted.

    Attributes:
        form: How weights enter: a name in `FORMS`.
        penalty: Of the ridge, relative to the number of mixtures.
        centre: (features,) means that are taken off.
        slopes: (features,) of the outcome.
        intercept: Outcome at the centre.
        errors: (mixtures,) of leave-one-out: outcome minus what is predicted without it.
    """

    form: str
    penalty: float
    centre: Array
    slopes: Array
    intercept: float
    errors: Array

    def predict(self, weights: Array) -> Array:
        """Predict outcomes of mixtures (n, sources); returns (n,)."""
        predicted: Array = (FORMS[self.form](weights) - self.centre) @ self.slopes + self.intercept
        return predicted


def fit(weights: Array, outcome: Array) -> Fit:
    """Fit the form and penalty of the least errors of leave-one-out.

    Args:
        weights: (mixtures, sources), each row adding up to 1; three mixtures at least.
        outcome: (mixtures,), the higher the better.
    """
    fits = [_ridge(form, penalty, weights, outcome) for form in FORMS for penalty in PENALTIES]
    return min(fits, key=lambda one: float(np.square(one.errors).sum()))


def _ridge(form: str, penalty: float, weights: Array, outcome: Array) -> Fit:
    features = FORMS[form](weights)
    centre = features.mean(axis=0)
    scale = features.std(axis=0)
    scale[scale == 0] = 1.0
    x = (features - centre) / scale
    intercept = float(outcome.mean())
    inverse = np.linalg.inv(x.T @ x + penalty * len(x) * np.eye(x.shape[1]))
    slopes = inverse @ x.T @ (outcome - intercept)
    leverage = 1 / len(x) + np.einsum("ij,jk,ik->i", x, inverse, x)
    residual = outcome - intercept - x @ slopes
    # A mixture that the fit goes through exactly says nothing of how well it predicts.
    errors = residual / np.maximum(1 - leverage, 1e-6)
    return Fit(form, penalty, centre, slopes / scale, intercept, errors)


@dataclass(frozen=True)
class HeldOut:
    """How well mixtures are predicted that had no part in the fit, nor in the choice of its form.

    Attributes:
        predicted: (mixtures,), each by a regression on all others.
        r2: Share of the variance that is predicted; 0 is what the mean of the others would do, and
            below 0 is worse than that.
        rank: Spearman's correlation of predicted and observed outcomes; nan if all are equal.
        p: Chance of so high a correlation where there is none.
    """

    predicted: Array
    r2: float
    rank: float
    p: float

    @property
    def predicts(self) -> bool:
        """Whether the regression orders mixtures that it did not see, beyond chance."""
        return self.r2 > 0 and self.p < 0.05


def held_out(weights: Array, outcome: Array) -> HeldOut:
    """Predict each mixture by all others; shapes as for `fit`."""
    n = len(outcome)
    predicted, mean = np.empty(n), np.empty(n)
    for i in range(n):
        others = np.arange(n) != i
        predicted[i] = fit(weights[others], outcome[others]).predict(weights[i : i + 1])[0]
        mean[i] = outcome[others].mean()
    spread = float(np.square(outcome - mean).sum())
    r2 = 1 - float(np.square(outcome - predicted).sum()) / spread if spread else 0.0
    if np.ptp(predicted) == 0 or np.ptp(outcome) == 0:
        return HeldOut(predicted, r2, float("nan"), 1.0)
    rank, p = stats.spearmanr(predicted, outcome, alternative="greater")
    return HeldOut(predicted, r2, float(rank), float(p))


@dataclass(frozen=True)
class Proposal:
    """Weights that promise most, and how far to trust them.

    Attributes:
        weights: (sources,), adding up to 1.
        low: (sources,) lower ends of the 95% bootstrap intervals.
        high: (sources,) upper ends.
        gain: Predicted outcome above that of the base's mixture.
        gain_low: Lower end of its 95% bootstrap interval.
        gain_high: Upper end.
    """

    weights: Array
    low: Array
    high: Array
    gain: float
    gain_low: float
    gain_high: float


def propose(
    weights: Array, outcome: Array, base: Array, *, concentration: float, seed: int
) -> Proposal:
    """Propose weights, with intervals.

    The best of many mixtures drawn as the training mixtures were are averaged. The bootstrap keeps
    the mixtures and draws their errors of leave-one-out anew, and chooses form and penalty again.

    Args:
        weights: (mixtures, sources).
        outcome: (mixtures,).
        base: (sources,) weights of the mixture to beat.
        concentration: Of the Dirichlet distribution.
        seed: Of candidates and bootstrap.
    """
    draw = np.random.default_rng(seed)
    candidates = draw.dirichlet(np.full(weights.shape[1], concentration), CANDIDATES)
    fitted = fit(weights, outcome)
    best = _best(fitted, candidates)
    pair = np.stack([best, base])
    centred = fitted.errors - fitted.errors.mean()
    expected = fitted.predict(weights)
    proposals, gains = [], []
    for _ in range(RESAMPLES):
        again = fit(weights, expected + draw.choice(centred, len(centred)))
        proposals.append(_best(again, candidates))
        gains.append(-np.diff(again.predict(pair))[0])
    low, high = np.percentile(proposals, [2.5, 97.5], axis=0)
    gain_low, gain_high = np.percentile(gains, [2.5, 97.5])
    gain = float(-np.diff(fitted.predict(pair))[0])
    return Proposal(best, low, high, gain, float(gain_low), float(gain_high))


def _best(fitted: Fit, candidates: Array) -> Array:
    order = np.argsort(-fitted.predict(candidates), kind="stable")
    mean: Array = candidates[order[:BEST]].mean(axis=0)
    return mean
