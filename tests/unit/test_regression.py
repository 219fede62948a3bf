"""Regression of outcomes on weights: it finds what is there, and says so when nothing is."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from stillroom.study.mixing.regression import FORMS, fit, held_out, propose

EQUAL = np.full(3, 1 / 3)


def mixtures(seed, n=16, sources=3):
    draw = np.random.default_rng(seed)
    return draw.dirichlet(np.ones(sources), n), draw


def test_the_better_source_is_proposed_and_its_gain_foreseen():
    weights, draw = mixtures(0)
    outcome = weights @ [0.10, 0.0, -0.10] + draw.normal(0, 0.01, len(weights))
    assert held_out(weights, outcome).predicts
    proposal = propose(weights, outcome, EQUAL, concentration=1.0, seed=0)
    assert proposal.weights[0] > 0.8
    assert proposal.gain_low < 0.1 * proposal.weights[0] - 0.1 * proposal.weights[2] + 0.01
    assert proposal.gain_low > 0


def test_sources_that_help_ever_less_are_mixed_in_proportion():
    weights, draw = mixtures(1, n=40)
    worth = np.array([0.03, 0.02, 0.01])
    outcome = np.log(weights + 0.01) @ worth + draw.normal(0, 0.003, len(weights))
    proposal = propose(weights, outcome, EQUAL, concentration=1.0, seed=0)
    assert proposal.weights == pytest.approx(worth / worth.sum(), abs=0.12)
    assert proposal.weights.sum() == pytest.approx(1)
    assert (proposal.low <= proposal.high).all()


def test_noise_is_seldom_called_a_prediction():
    claims = []
    for seed in range(40):
        weights, draw = mixtures(seed)
        claims.append(held_out(weights, draw.normal(0, 0.01, len(weights))).predicts)
    assert np.mean(claims) <= 0.1


def test_outcomes_that_do_not_differ_predict_nothing():
    weights, _ = mixtures(2)
    held = held_out(weights, np.full(len(weights), 0.4))
    assert held.r2 == 0
    assert np.isnan(held.rank)
    assert not held.predicts


@pytest.mark.parametrize("seed", range(3))
def test_errors_of_leave_one_out_are_those_of_fits_without_each(seed):
    weights, draw = mixtures(seed, n=12)
    outcome = weights @ [0.2, 0.1, 0.0] + draw.normal(0, 0.02, len(weights))
    fitted = fit(weights, outcome)
    features = FORMS[fitted.form](weights)
    scaled = features / features.std(axis=0)
    strength = fitted.penalty * len(weights)
    for i in range(len(weights)):
        others = np.arange(len(weights)) != i
        centre, mean = scaled[others].mean(axis=0), outcome[others].mean()
        x = scaled[others] - centre
        slopes = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ outcome[others])
        predicted = mean + (scaled[i] - centre) @ slopes
        assert fitted.errors[i] == pytest.approx(outcome[i] - predicted, rel=1e-6)


def test_the_same_numbers_give_the_same_proposal():
    weights, draw = mixtures(3)
    outcome = draw.normal(0, 1, len(weights))
    one, other = (propose(weights, outcome, EQUAL, concentration=1.0, seed=5) for _ in range(2))
    assert (one.weights == other.weights).all()
    assert one.gain_high == other.gain_high
