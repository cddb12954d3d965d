"""A training step and its parts: averaging, accumulation, clipping, soft targets; compiled and eager."""

import numpy as np
import pytest

from minicnn import Tensor, backend, get_precision, models, nn
from minicnn.backend.cpu import jit
from minicnn.nn import Parameter
from minicnn.training import Config, Trainer, TrainingError, evaluate


def state(model):
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}


def agree(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        scale = np.abs(array).max(initial=1e-3)
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def trained(trainer, epochs=1):
    for _ in range(epochs):
        trainer.run_epoch()
    return trainer


OPTIONS = {
    "clip_norm": {"clip_norm": 0.05},
    "ema": {"ema": 0.9},
    "accumulate": {"accumulate": 2},
    "groups": {"decay_bias_and_norm": False, "weight_decay": 0.1, "lr": 0.05},
    "soft targets": {"mixup": 0.4, "label_smoothing": 0.1},
    "all": {"clip_norm": 0.05, "clip_value": 0.01, "ema": 0.9, "accumulate": 2, "cutmix": 1.0, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("model", ["lenet", "tiny"])
@pytest.mark.parametrize("name", OPTIONS)
def test_compiled_steps_are_eager_ones(splits, tiny, name, model):
    """Both sum in float32 in another order: 1e-4 after six batches; the average is another than the weights."""
    config = Config(model=model, epochs=2, batch_size=32, **{"lr": 0.02, **OPTIONS[name]})
    compiled, eager = (
        trained(Trainer(config, splits, backend.get("numpy"), eager), epochs=2) for eager in (False, True)
    )
    for part in ("model", "averaged"):
        agree(state(getattr(compiled, part)), state(getattr(eager, part)), 1e-4)
    for ours, other in zip(compiled.history, eager.history, strict=True):
        assert ours["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    assert (compiled.averaged is compiled.model) == ("ema" not in OPTIONS[name])


@pytest.mark.parametrize(("size", "batches", "whole"), [(16, 4, 64), (32, 3, 65), (5, 13, 65)])
def test_accumulated_batches_are_one_large_batch(trainer, size, batches, whole):
    """65 pictures, so that the last batch and the last step are smaller ones."""
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "clip_norm": 0.5, "lr": 0.1}
    many = trained(trainer(batch_size=size, accumulate=batches, **options))
    one = trained(trainer(batch_size=whole, **options))
    assert many.optimizer.steps == one.optimizer.steps == -(-65 // whole)
    agree(state(many.model), state(one.model), 1e-5)
    assert many.history[0]["learning_rate"] == one.history[0]["learning_rate"]


def test_a_schedule_counts_steps_not_batches(trainer):
    options = {"schedule": "cosine", "epochs": 2, "lr": 0.1}
    many, one = trainer(batch_size=16, accumulate=4, **options), trainer(batch_size=64, **options)
    for epoch in (0, 1):
        rates = []
        for run in (many, one):
            rates.append([])
            run.run_epoch(lambda *_, run=run, to=rates[-1]: to.append(run.optimizer.lr))
        assert rates[0] == [rates[1][0]] * 4 + [rates[1][1]], epoch


def test_the_average_by_its_formula(trainer, tiny):
    """d_t = min(d, (1 + t) / (10 + t)) of parameters and running statistics, from the initial ones."""
    run = trainer(model="tiny", ema=0.4, epochs=4, lr=0.05)
    expected, steps = state(run.model), []

    def follow(*_):
        decay = min(0.4, (2 + len(steps)) / (11 + len(steps)))
        steps.append(decay)
        for name, value in state(run.model).items():
            expected[name] += (1 - decay) * (value - expected[name])
        agree(state(run.averaged), expected, 1e-5)

    for _ in range(4):
        run.run_epoch(follow)
    assert len(steps) == 12 and steps[0] == 2 / 11 and steps[-1] == 0.4
    assert np.abs(state(run.averaged)["norm.running_mean"] - state(run.model)["norm.running_mean"]).max() > 1e-3


def test_the_average_is_what_is_validated_and_saved(trainer, splits):
    run = trained(trainer(ema=0.5, lr=0.1))
    row = run.history[0]
    result = evaluate(run.averaged, run.loader("validation"))
    assert (result.loss, result.accuracy) == pytest.approx((row["validation_loss"], row["validation_accuracy"]), 1e-5)
    assert evaluate(run.model, run.loader("validation")).loss != pytest.approx(result.loss, 1e-4)
    arrays, _ = run.weights()
    agree({name: a.astype(np.float64) for name, a in arrays.items()}, state(run.averaged), 0)


def test_validation_with_mirror_images(trainer):
    run = trained(trainer(tta=True, lr=0.1))
    plain, mirrored = (evaluate(run.model, run.loader("validation"), tta=tta).loss for tta in (False, True))
    assert run.history[0]["validation_loss"] == pytest.approx(mirrored, rel=1e-5)
    assert plain != pytest.approx(mirrored, rel=1e-4)


def test_mixed_pictures_count_as_right_where_the_larger_share_is(trainer):
    run = trainer(mixup=1.0)
    images, labels = next(run.batches(0))
    assert labels.dtype == np.float32 and (labels.max(1) < 1).any()
    answers = run.model(Tensor(images)).numpy().argmax(1)
    _, correct = run.learn(0, 0, images, labels)
    assert correct == (answers == labels.argmax(1)).sum()


class Root(nn.Module):
    """The gradient of the root of 0 is infinite."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.weight = Parameter(np.zeros(num_classes, np.float32))

    def forward(self, input):
        return input.mean((2, 3)) + self.weight.sqrt()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_norm_that_is_not_finite_stops_before_the_weights_change(splits, monkeypatch, eager):
    monkeypatch.setitem(models._MODELS, "root", Root)
    run = Trainer(Config(model="root", clip_norm=1.0), splits, backend.get("numpy"), eager)
    message = r"step 1 of epoch 1: the norm of the gradient is (inf|nan); the output of every layer is finite; lower"
    with pytest.raises(TrainingError, match=message):
        run.run_epoch()
    assert run.model.weight.tolist() == [0, 0, 0] and run.optimizer.steps == 0


# In bfloat16


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "ema": 0.9}], ids=["plain", "all"])
def test_steps_and_validation_run_within_the_precision(splits, tiny, monkeypatch, options):
    """On the kernels of the reference, which any processor has."""
    seen, small = [], models._MODELS["tiny"]

    class Noting(small):
        def forward(self, input):
            seen.append((self.training, get_precision()))
            return super().forward(input)

    monkeypatch.setitem(models._MODELS, "noting", Noting)
    for precision in ("float32", "bf16"):
        seen.clear()
        config = Config(model="noting", batch_size=32, precision=precision, **options)
        with backend.use("reference"):
            trained(Trainer(config, splits, backend.get("reference"), eager=True))
        assert set(seen) == {(True, precision), (False, precision)} and get_precision() == "float32"


def first_changes(splits, name, eager, precision):
    """What the first step adds to the weights of the first convolution: its gradient, through all layers after it."""
    with backend.use(name):
        run = Trainer(Config(batch_size=32, lr=0.1, precision=precision), splits, backend.get(name), eager)
        before = run.model.conv1.weight.numpy().copy()
        run.run_epoch(lambda *_: True)
        return run.model.conv1.weight.numpy().astype(np.float64) - before


@pytest.mark.skipif(not jit.HAS_BFLOAT16, reason="the processor has no AVX512_BF16")
@pytest.mark.parametrize("eager", [True, False])
def test_a_step_in_bfloat16_is_the_references(splits, eager):
    """Sums in another order round a few values the other way, which is some ten times less than all the rounding."""
    expected = first_changes(splits, "reference", True, "bf16")
    far, near = (
        np.linalg.norm(first_changes(splits, "numpy", eager, precision) - expected) / np.linalg.norm(expected)
        for precision in ("float32", "bf16")
    )
    assert near < 0.01 < 0.02 < far


# Which batches


def batches(run, epoch):
    return [(images.copy(), labels) for images, labels in run.batches(epoch)]


def test_an_epoch_of_few_batches(trainer):
    run = trained(trainer(limit_batches=2, schedule="cosine", epochs=2))
    assert run.optimizer.steps == 2 and len(batches(run, 1)) == 2
    assert run.history[0]["learning_rate"] == pytest.approx(0.02 * (1 + np.cos(np.pi / 4)) / 2)
    assert len(batches(trainer(limit_batches=9), 0)) == 3


def test_validation_on_few_batches(trainer, monkeypatch):
    monkeypatch.setattr("minicnn.training.loop._EVALUATION_BATCH", 6)
    row = trained(trainer(limit_batches=1)).history[0]
    assert (row["validation_accuracy"] * 6) % 1 == pytest.approx(0, abs=1e-9)
    run = trainer(limit_batches=1)
    assert len(evaluate(run.model, run.loader("validation"), batches=2).labels) == 12


def test_overfitting_one_batch(trainer):
    run = trainer(overfit_batch=True, flip=0.5, shift=3, limit_batches=2, epochs=60, lr=0.05)
    first = next(trainer().batches(0))
    for epoch in (0, 3):
        for images, labels in batches(run, epoch):
            np.testing.assert_array_equal(images, first[0])
            np.testing.assert_array_equal(labels, first[1])
    trained(run, epochs=60)
    assert run.history[-1]["train_loss"] < 0.05 and run.history[-1]["train_accuracy"] == 1


def test_augmentation_from_an_epoch_on(trainer):
    plain, late, always = trainer(), trainer(flip=1.0, augment_from=3), trainer(flip=1.0)
    for epoch, other in ((0, plain), (1, plain), (2, always), (3, always)):
        for (found, _), (expected, _) in zip(batches(late, epoch), batches(other, epoch), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(batches(plain, 0)[0][0], batches(always, 0)[0][0])
