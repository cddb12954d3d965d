"""What the recipe "speedrun" is made of, each by itself: whitening, rates of biases, Lookahead, no validation."""

import numpy as np
import pytest

from minicnn import backend, data, models, nn
from minicnn.training import Config, Trainer, evaluate, recipe
from minicnn.training.evaluation import predict


def arrays(model):
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}


def test_the_first_convolution_whitens_patches_and_is_fixed(splits, backend_name):
    config = Config(model="speednet", model_options={"widths": [4]}, epochs=3, batch_size=32, whiten=50, whiten_bias=1)
    run = Trainer(config, splits, backend.default())
    before = arrays(run.model)
    images = (splits.train.images[:50] / 255.0 - 0.4) / 0.25
    found = np.lib.stride_tricks.sliding_window_view(images, (2, 2), (2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    filters = before["whitening.weight"].reshape(24, 12)
    np.testing.assert_array_equal(filters[12:], -filters[:12])
    white = found @ filters[:12].T
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(12), atol=2e-2)  # eps: 5e-4
    biases = []
    for _ in range(3):
        run.run_epoch()
        biases.append(arrays(run.model)["whitening.bias"])
    after = arrays(run.model)
    np.testing.assert_array_equal(after["whitening.weight"], before["whitening.weight"])
    assert (biases[0] != before["whitening.bias"]).any()
    np.testing.assert_array_equal(biases[1], biases[0])
    np.testing.assert_array_equal(biases[2], biases[0])
    assert (after["features.1.weight"] != before["features.1.weight"]).any()


def test_a_model_without_a_convolution_cannot_be_whitened(splits, monkeypatch):
    monkeypatch.setitem(models._MODELS, "flat", lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)))
    with pytest.raises(ValueError, match="whiten: expected a model with a convolution, flat has none"):
        Trainer(Config(model="flat", whiten=5), splits, backend.get("numpy"))


def test_biases_have_their_rate_and_the_same_decay(trainer):
    run = trainer(bias_lr=8.0, weight_decay=0.4, schedule="step", step_size=1, gamma=0.5)
    matrices, vectors = run.optimizer.param_groups
    assert {p.ndim for p in vectors["params"]} == {1} and min(p.ndim for p in matrices["params"]) == 2
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.4, 0.05)
    run.run_epoch()
    run.run_epoch()
    assert (matrices["lr"], vectors["lr"]) == (0.01, 0.08)
    fixed = trainer(bias_lr=8.0, weight_decay=0.4, decay_bias_and_norm=False).optimizer.param_groups
    assert [group["weight_decay"] for group in fixed] == [0.4, 0.0]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("eager", [True, False])
def test_lookahead(splits, eager, accumulate):
    """Beside a run without: its steps from the same weights, and the average by hand in float64 of float32."""
    options = {"model": "speednet", "model_options": {"widths": [4]}, "lr": 0.01}
    options |= {"epochs": 4, "batch_size": 16, "accumulate": accumulate}
    plain = Trainer(Config(**options), splits, backend.get("numpy"), eager)
    run = Trainer(Config(**options, lookahead=2, lookahead_decay=0.8), splits, backend.get("numpy"), eager)
    steps = run._steps(run.batches_per_epoch)
    average, step = arrays(run.model), 0
    every = ((epoch, *numbered) for epoch in range(4) for numbered in enumerate(plain.batches(epoch)))
    for epoch, batch, (images, labels) in every:
        for each in (plain, run):
            each.learn(epoch, batch, images, labels)
        if (batch + 1) % accumulate and batch + 1 < run.batches_per_epoch:
            continue
        step += 1
        now = arrays(plain.model)
        if step % 2 == 0 or step == 4 * steps:
            decay = 0.8**2 * (step / (4 * steps)) ** 3
            average = {name: a + (1 - decay) * (now[name] - a) for name, a in average.items()}
            now = average
            plain.model.load_state_dict({name: a.astype(np.float32) for name, a in average.items()})
        for name, array in arrays(run.model).items():
            np.testing.assert_allclose(array, now[name], rtol=1e-4, atol=1e-5, err_msg=name)
        for name, array in arrays(run.averaged).items():
            np.testing.assert_allclose(array, average[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert step == 4 * steps and step >= 12


def test_a_run_shorter_than_lookahead_is_not_lost(trainer):
    run = trainer(epochs=1, lookahead=5)
    before = arrays(run.averaged)
    run.run_epoch()
    assert all((array != before[name]).any() for name, array in arrays(run.averaged).items())


def test_a_state_from_before_there_were_runs_without_validation(trainer):
    state, metadata = trainer().state()
    del metadata["config"]["lookahead"]
    metadata["config"]["validation"] = 0
    trainer().restore(state, metadata)


def test_options_that_exclude_each_other():
    with pytest.raises(ValueError, match="ema, lookahead: expected one of them, received both"):
        Config(ema=0.9, lookahead=5)
    for name, needed in {"tta_shift": "tta", "whiten_bias": "whiten", "alternate": "flip"}.items():
        with pytest.raises(ValueError, match=f"{name}: expected {needed} with it, or {name} off"):
            Config(**{name: name == "alternate" or 1})
    with pytest.raises(ValueError, match="piecewise_linear: expected knots with rising shares"):
        Config(schedule="linear", knots=[[0.5, 1.0], [0.25, 0.0]])


def test_without_validation_the_last_epoch_is_kept(splits, trainer):
    bare = data.Splits(splits.train, None, splits.test, "noise", splits.mean, splits.std)
    run = trainer(splits=bare, epochs=3, validation=0)
    while not run.finished:
        run.run_epoch()
    assert run.best is run.history[-1] and run.best["epoch"] == 3
    assert not {"validation_loss", "validation_accuracy"} & run.best.keys()
    assert run.weights()[1]["validation_accuracy"] is None
    again = trainer(splits=bare, epochs=3, validation=0)
    again.restore(*run.state())
    assert again.history == run.history
    with pytest.raises(ValueError, match="cannot resume: .*validation was 0, now -1"):
        trainer(epochs=3).restore(*run.state())


def test_plateau_needs_validation():
    with pytest.raises(ValueError, match="schedule, early_stop: expected validation images with them"):
        Config(schedule="plateau", validation=0)
    with pytest.raises(ValueError, match="schedule, early_stop: expected validation images with them"):
        Config(early_stop=2, validation=0)


class Corner(nn.Module):
    """The channels of one pixel are the logits."""

    def forward(self, input):
        return input[:, :, 0, 1]


def test_shifted_views_count_for_a_half(splits, backend_name):
    """Of pixel (0, 1): with a shift of 2 the views have there (2, 1), reflected, and (2, 3); and the mirror images."""
    loader = data.Loader(splits.test, 7, mean=(0, 0, 0), std=(0.2, 0.2, 0.2), backend=backend.default())
    x = splits.test.images.astype(np.float64) / 51
    seen = [x[:, :, i, j] for i, j in ((0, 1), (2, 1), (2, 3))]
    mirrored = [x[:, :, i, 31 - j] for i, j in ((0, 1), (2, 1), (2, 3))]
    shares = np.array([2, 1, 1]) / 8
    expected = sum(
        share * np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        for views in (seen, mirrored)
        for share, logits in zip(shares, views, strict=True)
    )
    result = evaluate(Corner(), loader, tta=True, shift=2)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-4)
    images = np.concatenate([x for x, _ in loader.epoch(0)])
    np.testing.assert_allclose(predict(Corner(), images, tta=True, shift=2), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="tta: expected a shift smaller than the pictures"):
        predict(Corner(), images, tta=True, shift=32)


def test_the_recipe():
    config = recipe("speedrun")
    assert (config.lookahead, config.alternate, config.validation, config.tta_shift) == (5, True, 0, 1)
    rates = [config.make_schedule(100)(step) for step in (0, 276, 1200)]
    assert rates == pytest.approx([0.3, 1.5, 0.105])
