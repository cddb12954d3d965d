"""The training loop: reproducible, resumable at any step, and loud when it diverges."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from minicnn import Tensor, backend, data, models, nn
from minicnn.training import Config, Trainer, TrainingError, checkpoint

TIMES = ("seconds", "images_per_second")
RUNS = {
    "one-cycle": {"schedule": "one-cycle", "nesterov": True, "weight_decay": 1e-3, "flip": 0.5, "shift": 2},
    "plateau": {"schedule": "plateau", "patience": 0, "gamma": 0.3, "optimizer": "adam", "lr": 0.01},
    "multi-step": {"schedule": "multi-step", "milestones": (1, 3), "optimizer": "adamw", "clip_norm": 0.5},
    "averaged": {"ema": 0.9, "accumulate": 3, "clip_norm": 0.5, "weight_decay": 0.1, "decay_bias_and_norm": False},
    "mixed": {"mixup": 0.3, "cutmix": 0.3, "augment_from": 2, "tta": True, "ema": 0.99, "optimizer": "adam"},
    "looking ahead": {"lookahead": 2, "schedule": "linear", "flip": 0.5, "alternate": True, "bias_lr": 4.0},
    "weighted": {"class_weights": "balanced", "clip_norm": 1.0},
    "weighted by hand": {"class_weights": [1, 0.5, 2], "accumulate": 3, "mixup": 0.2},
    "whitened": {"whiten": 20, "whiten_bias": 2, "momentum": 0.9},
    "smoothed": {"schedule": "cosine", "warmup": 1, "label_smoothing": 0.1, "clip_value": 0.01, "seed": 5},
}


def finish(trainer):
    while not trainer.finished:
        trainer.run_epoch()
    return trainer


def identity(trainer):
    """All that a run consists of, but for its times."""
    arrays, metadata = trainer.state()
    metadata = json.loads(json.dumps(metadata))
    for row in metadata["history"]:
        for column in TIMES:
            del row[column]
    del metadata["epoch"]["seconds"]
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}, metadata


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("stop", ["after an epoch", "after a step"])
def test_stop_and_resume_is_one_run_bit_for_bit(tiny, trainer, tmp_path, name, stop):
    options = {"model": "tiny", **RUNS[name]}
    whole = finish(trainer(**options))
    first = trainer(**options)
    first.run_epoch()
    if stop == "after a step":
        assert not first.run_epoch(lambda info: info.step == 2)
    stopped = identity(first)
    checkpoint.save(tmp_path / "last.safetensors", *first.state())
    stored, second = checkpoint.load(tmp_path / "last.safetensors"), trainer(**options)  # seeds the random streams anew
    second.restore(stored.arrays, stored.metadata)
    assert identity(second) == stopped
    assert identity(finish(second)) == identity(whole)
    assert len(whole.history) == 4 and second.optimizer.steps == 4 * (1 if "accumulate" in options else 3)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}], ids=["plain", "averaged"])
def test_counted_batches_and_options_of_groups_are_resumed(tiny, trainer, tmp_path, monkeypatch, options):
    """Batch norm that averages over all batches, and weight decay and momentum that were set on one group."""

    def cumulative(num_classes):
        model = small(num_classes)
        model.norm = nn.BatchNorm2d(4, momentum=None)
        return model

    def begun():
        run = trainer(model="cumulative", decay_bias_and_norm=False, **options)
        run.optimizer.param_groups[1].update(weight_decay=0.3, momentum=0.5, lr=7.0)
        return run

    small = models._MODELS["tiny"]
    monkeypatch.setitem(models._MODELS, "cumulative", cumulative)
    whole, first = finish(begun()), begun()
    first.run_epoch()
    first.run_epoch(lambda info: info.step == 2)
    checkpoint.save(tmp_path / "last.safetensors", *first.state())
    stored, second = checkpoint.load(tmp_path / "last.safetensors"), trainer(**asdict(first.config))
    second.restore(stored.arrays, stored.metadata)
    assert identity(second) == identity(first)
    group = second.optimizer.param_groups[1]
    assert (group["weight_decay"], group["momentum"]) == (0.3, 0.5)
    assert second.model.norm.num_batches_tracked.item() == 5
    assert identity(finish(second)) == identity(whole)
    assert second.averaged.norm.num_batches_tracked.item() == 12


def test_the_state_of_an_older_optimizer_is_refused(trainer):
    arrays, metadata = trainer().state()
    del arrays["optimizer.counts"]
    metadata["optimizer"] = {"steps": 0, "lr": 0.02}
    with pytest.raises(ValueError, match=r"cannot resume: missing: optimizer.counts \(10,\)"):
        trainer().restore(arrays, metadata)


def test_a_state_from_before_there_were_precisions_is_of_float32(trainer):
    arrays, metadata = trainer().state()
    del metadata["config"]["precision"]
    trainer().restore(arrays, metadata)
    with pytest.raises(ValueError, match="cannot resume: precision was 'float32', now 'bf16'"):
        trainer(precision="bf16").restore(arrays, metadata)


def test_stopping_at_the_last_step_still_finishes_the_epoch(trainer):
    one = trainer()
    assert one.run_epoch(lambda info: info.step == 3) and len(one.history) == 1


def test_same_seed_same_bits_with_any_number_of_threads(trainer):
    most = backend.get_num_threads()
    expected = identity(finish(trainer(epochs=2, flip=0.5)))
    assert identity(finish(trainer(epochs=2, flip=0.5))) == expected
    try:
        backend.set_num_threads(1)
        assert identity(finish(trainer(epochs=2, flip=0.5))) == expected
    finally:
        backend.set_num_threads(most)
    assert identity(finish(trainer(epochs=2, flip=0.5, seed=1)))[0] != expected[0]


def test_losses_agree_between_kernels(trainer):
    """Both sum in float32 in another order: 1e-4 relative after 6 steps."""
    losses = {}
    for name in ("reference", "numpy"):
        with backend.use(name):
            losses[name] = [row["train_loss"] for row in finish(trainer(name, epochs=2)).history]
    assert losses["numpy"] == pytest.approx(losses["reference"], rel=1e-4)


def test_history_and_best(trainer):
    run = finish(trainer(epochs=6, lr=0.05))
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5, 6]
    ranked = sorted(run.history, key=lambda row: (-row["validation_accuracy"], row["validation_loss"]))
    assert run.best is ranked[0]
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    assert all(row["learning_rate"] == 0.05 and row["seconds"] > 0 for row in run.history)


def test_a_last_batch_of_one_image_passes_batch_norm(tiny, trainer):
    run = trainer(model="tiny", epochs=1)
    assert run.batches_per_epoch == 3 and len(run.splits.train) % 32 == 1
    assert math.isfinite(finish(run).history[0]["train_loss"])


def test_early_stopping(trainer):
    run = finish(trainer(epochs=50, lr=1e-30, early_stop=3))  # nothing is learned, so the first epoch stays the best
    assert len(run.history) == 4 and run.best is run.history[0]


def test_plateau_lowers_the_rate(trainer):
    run = finish(trainer(epochs=5, lr=1e-30, schedule="plateau", patience=1, gamma=0.5))
    assert [row["learning_rate"] / 1e-30 for row in run.history] == pytest.approx([1, 1, 1, 0.5, 0.5])


def one_step(run):
    """The largest change of a weight and the norm of all changes in the first step."""
    before = [p.numpy().copy() for p in run.model.parameters()]
    run.run_epoch(lambda *_: True)
    changes = np.concatenate([(p.numpy() - b).ravel() for p, b in zip(run.model.parameters(), before, strict=True)])
    return np.abs(changes).max(), np.linalg.norm(changes.astype(np.float64))


def test_clipping_takes_effect(trainer):
    largest, norm = one_step(trainer(lr=1.0))
    assert largest > 1e-2 and norm > 1e-1
    assert one_step(trainer(lr=1.0, clip_value=1e-3))[0] == pytest.approx(1e-3, rel=1e-3)
    assert one_step(trainer(lr=1.0, clip_norm=1e-2))[1] == pytest.approx(1e-2, rel=1e-3)


def test_label_smoothing_takes_effect(trainer):
    run, losses = trainer(label_smoothing=0.3), []
    images, labels = next(run.train_loader.epoch(0))
    logits = run.model(Tensor(images)).numpy().astype(np.float64)
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    run.run_epoch(lambda info: losses.append(info.loss) or True)
    target = np.eye(3)[labels] * 0.7 + 0.1  # (1 - s) onehot + s / K
    assert losses == pytest.approx([-(target * log).sum(1).mean()], rel=1e-5)


def test_normalize_unit_is_zero_to_one(trainer):
    images, _ = next(trainer(normalize="unit").train_loader.epoch(0))
    assert images.min() >= 0 and 0.9 < images.max() <= 1
    assert next(trainer().train_loader.epoch(0))[0].min() == pytest.approx(-0.4 / 0.25)


def test_options_reach_the_model(trainer):
    run = trainer(model_options={"relu_logits": True})
    assert run.model(Tensor(next(run.train_loader.epoch(0))[0])).numpy().min() == 0
    assert run.weights()[1]["options"] == {"relu_logits": True}


@pytest.mark.parametrize("backend_name", ["numpy", "reference"], indirect=True)
@pytest.mark.filterwarnings("error")
def test_a_huge_rate_stops_at_the_step_and_names_a_layer(trainer, backend_name):
    with pytest.raises(
        TrainingError, match=r"step \d of epoch 1: the loss is (nan|inf); the first layer .* (conv|fc)\d"
    ):
        finish(trainer(backend_name, lr=1e6))


def test_the_first_broken_layer_is_named(trainer):
    run = trainer()
    run.model.fc2.weight.data[3, 3] = np.nan
    run.model.fc3.weight.data[0, 0] = np.inf
    with pytest.raises(TrainingError, match=r"step 1 of epoch 1.* is fc2 \(its weight\); lower .* \(0.02 now\)"):
        run.run_epoch()
    assert run.optimizer.steps == 0


def test_a_broken_validation_is_an_error_too(trainer):
    run = trainer()

    def spoil(info):
        if info.step == 3:
            run.model.conv1.bias.data[0] = np.nan

    with pytest.raises(TrainingError, match=r"epoch 1: the validation loss is nan; .* is conv1 \(its bias\)"):
        run.run_epoch(spoil)
    assert not run.history


def test_resume_with_other_options_lists_them_and_changes_nothing(trainer, splits):
    first = trainer()
    first.run_epoch()
    other = trainer(lr=0.5, seed=1, milestones=(2,))
    before = identity(other)
    with pytest.raises(ValueError) as caught:
        other.restore(*first.state())
    expected = "cannot resume: lr was 0.02, now 0.5; milestones was (), now (2,); seed was 0, now 1"
    assert str(caught.value) == expected and identity(other) == before


def test_resume_with_other_data_is_refused(trainer, splits):
    first = trainer()
    fewer = data.Splits(*(p.subset(np.arange(20)) for p in (splits.train, splits.validation, splits.test)),
                        "other", splits.mean, splits.std)  # fmt: skip
    with pytest.raises(ValueError, match="dataset was 'noise', now 'other'; records was .*65.*, now .*20"):
        trainer(splits=fewer).restore(*first.state())


@pytest.mark.parametrize(
    "change",
    [
        {"model": "vit", "model_options": {"depth": 10**9}},
        {"model": "vit", "model_options": {"dim": 8000}},
        {"model": "vit", "model_options": {"dim": 10**400}},
        {"model": "vgg", "model_options": {"widths": [10**9]}},
        {"milestones": [10**400, []]},
        {"colour": 1},
    ],
)
def test_stored_options_cost_no_more_than_the_arrays_beside_them(trainer, change):
    arrays, metadata = trainer().state()
    metadata["config"] |= change
    with pytest.raises(checkpoint.CheckpointError, match="cannot resume: the stored options are not usable: "):
        trainer().restore(arrays, metadata)


def test_resume_with_another_model_is_refused(tiny, trainer):
    with pytest.raises(ValueError, match=r"model was 'lenet', now 'tiny'; missing: model.conv.*extra: model.conv1.*"):
        trainer(model="tiny").restore(*trainer().state())


def test_more_epochs_only_where_the_schedule_does_not_depend_on_them(trainer):
    first = finish(trainer(epochs=2))
    longer = trainer(epochs=4)
    longer.restore(*first.state())
    assert identity(finish(longer))[0] == identity(finish(trainer(epochs=4)))[0]
    with pytest.raises(ValueError, match="cannot resume: epochs was 4, now 5"):
        trainer(epochs=5, schedule="one-cycle").restore(*trainer(epochs=4, schedule="one-cycle").state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "weights"}, "does not hold the state of a run"),
        ({"config": {"colour": 1}}, "the stored options are not usable: .*colour"),
        ({"config": None}, "the stored options are not usable"),
        ({"epoch": {}}, "the state is damaged: epoch.batch is missing"),
        ({"random": {"host": 3}}, "the state is damaged"),
    ],
)
def test_damaged_state_is_refused(trainer, change, message):
    arrays, metadata = trainer().state()
    with pytest.raises(checkpoint.CheckpointError, match=message):
        trainer().restore(arrays, metadata | change)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda k: [nn.Flatten(), nn.Linear(3072, k - 1)], r"expected logits \(N, 10\), .* received \(N, 9\)"),
        (lambda k: [nn.Flatten(), nn.Linear(3072, k + 1)], r"expected logits \(N, 10\), .* received \(N, 11\)"),
        (lambda k: [nn.Conv2d(3, k, 3)], r"received shape \(1, 10, 30, 30\)"),
        (lambda k: [nn.Flatten(), nn.Linear(784, k)], r"it does not take pictures \(C, H, W\) of \(3, 32, 32\)"),
        (lambda k: [nn.Flatten()], "expected a parameter to train"),
    ],
)
def test_a_network_of_ones_own_is_looked_at_before_it_trains(monkeypatch, layers, message):
    monkeypatch.setattr(models, "_MODELS", dict(models._MODELS))
    models.register("own", lambda num_classes: nn.Sequential(*layers(num_classes)))
    with pytest.raises(ValueError, match=f"model own: .*{message}"):
        Trainer(Config(model="own"), data.load("digits", seed=0), backend.get("numpy"))
