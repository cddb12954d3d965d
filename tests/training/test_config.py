"""The options of a run: limits, schedules and optimizers."""

import math

import pytest

from minicnn import Tensor, optim
from minicnn.training import Config


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs: expected a whole number from 1, received 0"),
        ("epochs", 2.5, "epochs: expected a whole number from 1, received 2.5"),
        ("batch_size", -3, "batch_size: expected a whole number from 1, received -3"),
        ("batch_size", "8", "batch_size: expected a whole number from 1, received '8'"),
        ("lr", 0.0, "lr: expected a number above 0, received 0.0"),
        ("lr", math.nan, "lr: expected a number above 0, received nan"),
        ("lr", math.inf, "lr: expected a number above 0, received inf"),
        ("lr", None, "lr: expected a number above 0, received None"),
        ("momentum", -0.1, r"expected momentum in \[0, inf\), received -0.1"),
        ("momentum", math.nan, "expected momentum .* received nan"),
        ("weight_decay", math.inf, "expected weight_decay .* received inf"),
        ("flip", 1.5, "flip: expected a number from 0 to 1, received 1.5"),
        ("label_smoothing", math.nan, "label_smoothing: expected a number from 0 to 1, received nan"),
        ("clip_norm", -1.0, "clip_norm: expected a number from 0, received -1.0"),
        ("clip_value", math.inf, "clip_value: expected a number from 0, received inf"),
        ("shift", 32, "shift: expected a whole number from 0 to 31, received 32"),
        ("early_stop", -1, "early_stop: expected a whole number from 0, received -1"),
        ("seed", -1, "seed: expected a whole number from 0, received -1"),
        ("milestones", (3, 0), "milestones: expected a whole number from 1, received 0"),
        ("warmup", 60, "warmup: expected fewer than the 60 epochs, received 60"),
        ("model", "lent", "model: expected one of .*, received 'lent'; did you mean 'lenet'?"),
        ("optimizer", "adm", "did you mean 'adam'?"),
        ("schedule", "onecycle", "did you mean 'one-cycle'?"),
        ("normalize", "zscore", "normalize: expected one of mean-std, unit, received 'zscore'"),
        ("padding_mode", "reflekt", "did you mean 'reflect'?"),
    ],
)
def test_a_value_out_of_range_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Config(**{name: value})


def test_options_that_only_fail_together_are_refused():
    with pytest.raises(ValueError, match="nesterov expects a momentum"):
        Config(nesterov=True, momentum=0.0)
    with pytest.raises(ValueError, match=r"expected factor in \(0, 1\), received 1"):
        Config(schedule="plateau", gamma=1.0)
    assert Config(schedule="step", gamma=1.0).gamma == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: 0.8, 99: 0.8}),
        ({"schedule": "step", "step_size": 2, "gamma": 0.5}, {0: 0.8, 19: 0.8, 20: 0.4, 59: 0.2}),
        ({"schedule": "multi-step", "milestones": [1, 4]}, {9: 0.8, 10: 0.08, 39: 0.08, 40: 0.008}),
        ({"schedule": "cosine"}, {0: 0.8, 50: 0.4, 25: 0.4 * (1 + math.sqrt(0.5))}),
        ({"schedule": "one-cycle"}, {0: 0.8 / 25, 29: 0.8, 99: 0.8 / 25e4}),
        ({"schedule": "cosine", "warmup": 2}, {0: 0.8 / 21, 19: 0.8 * 20 / 21, 20: 0.8, 60: 0.4}),
        ({"schedule": "plateau"}, {0: 0.8, 99: 0.8}),
    ],
)
def test_schedules_count_in_epochs(options, expected):
    schedule = Config(epochs=10, lr=0.8, **options).make_schedule(10)
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, rel=1e-12)


def test_optimizers():
    weight = [Tensor([1.0])]
    sgd = Config(lr=0.3, momentum=0.7, nesterov=True, weight_decay=0.01).make_optimizer(weight)
    assert type(sgd) is optim.SGD
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay, sgd.dampening) == (0.3, 0.7, True, 0.01, 0)
    for name, kind in (("adam", optim.Adam), ("adamw", optim.AdamW)):
        adam = Config(optimizer=name, lr=0.3, weight_decay=0.01).make_optimizer(weight)
        assert type(adam) is kind and (adam.lr, adam.weight_decay) == (0.3, 0.01)


def test_zero_leaves_the_data_sets_own_split():
    assert Config(seed=3).split_options() == {"seed": 3, "validation": None, "train_size": None}
    assert Config(validation=7, train_size=9).split_options() == {"seed": 0, "validation": 7, "train_size": 9}
