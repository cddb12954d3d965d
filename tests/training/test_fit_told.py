"""What fit tells while it runs: callbacks, stops, logs; and class weights."""

import csv
import sys

import numpy as np
import pytest

import minicnn
from minicnn import nn
from minicnn.training import TrainingError, fit
from shared.fitting import QUIET, X, Y, bits, fitted_bits, network, pictures

# Callbacks, stops and logs


def test_callbacks_are_told_and_stop():
    x, y = pictures(50)
    steps, rows = [], []
    history = fit(network(), (x, y), 10, **QUIET, on_step=steps.append, on_epoch=rows.append)
    assert [(info.epoch, info.step) for info in steps] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert rows == list(history) and steps[2].loss == rows[0]["train_loss"]
    assert steps[2].accuracy == rows[0]["train_accuracy"] and steps[0].images_per_second > 0
    assert len(fit(network(), (x, y), 10, **QUIET, on_epoch=lambda row: True)) == 1
    assert len(fit(network(), (x, y), 10, **QUIET, on_step=lambda info: True)) == 0
    seen = []
    history = fit(network(), (x, y), 10, **QUIET, on_step=lambda info: seen.append(info) or info.step == 3)
    assert len(history) == 1 and len(seen) == 3


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_exception_of_a_callback_leaves_the_best_weights(error):
    x, y = pictures()
    model, seen = network(), []

    def on_epoch(row):
        seen.append(bits(model))
        if row["epoch"] == 2:
            raise error

    with pytest.raises(error):
        fit(model, (x, y), **{**QUIET, "epochs": 5}, on_epoch=on_epoch)
    assert bits(model) in seen and not model.training
    assert minicnn.predict(model, x).shape == (60, 3)
    fit(model, (x, y), **QUIET)


def test_a_loss_that_is_not_finite():
    x, y = pictures()
    model = network()
    with pytest.raises(TrainingError, match="step . of epoch 1: the loss is"):
        fit(model, (x, y), **QUIET, optimizer="sgd", lr=1e30, schedule="constant")
    assert not model.training


def test_early_stop():
    x, y = pictures()
    history = fit(network(), (x, y), progress=False, epochs=50, lr=1e-30, early_stop=2, schedule="constant")
    assert len(history) == 3


def test_history_is_rows_columns_and_files(tmp_path):
    x, y = pictures()
    history = fit(network(), (x, y), **QUIET, csv=tmp_path / "new" / "rows.csv")
    names = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate"]
    assert [*history[0]] == [*names, "seconds", "images_per_second"]
    assert history["train_loss"] == [row["train_loss"] for row in history]
    with pytest.raises(
        KeyError, match="history: expected one of epoch, .* received 'train_los'; did you mean 'train_loss'"
    ):
        history["train_los"]
    history.to_csv(tmp_path / "again.csv")
    with (tmp_path / "new" / "rows.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == [*history] and (tmp_path / "again.csv").read_text() == (tmp_path / "new" / "rows.csv").read_text()
    figure = history.plot()
    assert [axes.get_title("left") or axes.get_title() for axes in figure.axes][:2] == ["Loss", "Accuracy"]


def test_a_history_without_rows():
    with pytest.raises(ValueError, match="expected a finished epoch to plot, received none"):
        minicnn.training.History().plot()
    assert minicnn.training.History().best is None


def test_a_log_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    x, y = pictures()
    history = fit(network(), (x, y), **QUIET, tensorboard=tmp_path)
    for part in ("train", "validation"):
        log = EventAccumulator(str(tmp_path / part))
        log.Reload()
        for name in ("loss", "accuracy"):
            events = log.Tensors(name)
            assert [event.step for event in events] == [1, 2]
            found = [make_ndarray(event.tensor_proto).item() for event in events]
            assert found == pytest.approx(history[f"{part}_{name}"], rel=1e-6)


def test_without_tensorboard_there_is_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    model = network()
    with pytest.raises(ValueError, match=r'pip install "minicnn\[tensorboard\]"'):
        fit(model, (X, Y), **QUIET, tensorboard=tmp_path)
    assert not hasattr(model, "preprocessing")


def test_progress_without_a_terminal_is_a_line_an_epoch(capsys):
    fit(network(), (X, Y), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    fit(network(), (X, Y), **QUIET)
    assert capsys.readouterr().out == ""


# Class weights


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(("weights", "factors"), [("balanced", [2 / 3, 1.0, 2.0]), ([0.5, 3, 1], [0.5, 3, 1])])
def test_class_weights_are_those_of_the_loss(weights, factors, eager):
    """Of the first step, before a weight changes: sum w_y l / sum w_y, as PyTorch's cross_entropy has it."""
    y = np.repeat([0, 1, 2], [6, 4, 2])
    x = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 6), dtype=np.uint8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    inputs = (x / 255 - x.mean() / 255) / (x.std() / 255)
    logits = inputs.reshape(12, 48) @ model[1].weight.numpy().T.astype(float) + model[1].bias.numpy()
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(12), y]
    w = np.array(factors)[y]
    told = []
    fit(model, (x, y), None, progress=False, epochs=1, eager=eager, class_weights=weights, on_step=told.append)
    assert told[0].loss == pytest.approx((w * losses).sum() / w.sum(), rel=1e-5)


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"accumulate": 2}])
def test_class_weights_with_mixed_labels_and_added_gradients(options):
    """Factors count relative to each other, also where a loss is not divided by their sum."""
    x, y = pictures(40)
    weights = {"none": "", "ones": [1, 1, 1], "fours": [4, 4, 4], "balanced": "balanced", "first": [5, 1, 1]}
    found = {name: fitted_bits(x, y, class_weights=factors, **options)[1] for name, factors in weights.items()}
    assert found["ones"] == found["fours"]
    assert found["none"] != found["balanced"] != found["first"] != found["none"]
