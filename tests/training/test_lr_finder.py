"""The learning-rate range test."""

import numpy as np
import pytest

from minicnn.training import TrainingError
from minicnn.training.lr_finder import learning_rate_test, smoothed, suggestion


def test_the_rate_rises_by_a_factor_until_the_loss_explodes(trainer):
    run = trainer(lr=0.3, schedule="one-cycle", momentum=0.9)
    rates, losses = learning_rate_test(run, 60)
    assert 10 < len(rates) == len(losses) < 60 and np.isfinite(losses).all()
    np.testing.assert_allclose(rates, np.geomspace(1e-6, 10, 60)[: len(rates)], rtol=1e-12)
    assert run.optimizer.steps in (len(losses), len(losses) + 1)  # the last may be taken and only then not be finite
    assert min(losses) < losses[0] and 1e-4 < suggestion(rates, losses) < 1


def test_it_runs_to_the_end_where_nothing_explodes(trainer):
    rates, _ = learning_rate_test(trainer(optimizer="sgd", momentum=0.0, clip_norm=1e-6), 12)
    assert len(rates) == 12 and (rates[0], rates[-1]) == pytest.approx((1e-6, 10))


def test_it_stops_at_four_times_the_minimum(trainer, monkeypatch):
    """Smoothed: 1, 0.74, 0.83, 1.75 and 3.52, more than 4 * 0.74."""
    run, losses = trainer(), [1.0, 0.5, 1.0, 4.0, 9.0, 1.0]
    monkeypatch.setattr(run, "learn", lambda epoch, batch, images, labels: (losses[3 * epoch + batch], 0))
    assert learning_rate_test(run, 6)[1] == losses[:5]


def test_a_first_loss_that_is_not_finite_is_an_error(trainer):
    run = trainer()
    run.model.fc3.bias.data[0] = np.nan
    with pytest.raises(TrainingError, match="step 1 of epoch 1: the loss is nan"):
        learning_rate_test(run, 10)


def test_smoothing_by_its_formula():
    losses = np.random.default_rng(0).standard_normal(20)
    weights = 0.9 ** np.arange(20)[::-1]
    expected = [(weights[-n:] * losses[:n]).sum() / weights[-n:].sum() for n in range(1, 21)]
    np.testing.assert_allclose(smoothed(losses.tolist()), expected, rtol=1e-12)


def test_the_suggestion_is_where_the_loss_falls_most_steeply():
    """A loss that falls as a logistic curve around 0.01, and rises at the end; smoothing comes a little late."""
    rates = np.geomspace(1e-6, 10, 2000)
    losses = 2 / (1 + (rates / 0.01) ** 2) + np.where(rates > 1, 10 * (rates - 1), 0)
    assert 0.01 < suggestion(rates.tolist(), losses.tolist()) < 0.012
    with pytest.raises(ValueError, match="suggestion: expected three losses or more, received 2"):
        suggestion([0.1, 0.2], [1.0, 2.0])
