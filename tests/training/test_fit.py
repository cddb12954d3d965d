"""fit, evaluate, predict, save and load: any network on any arrays."""

import copy
import csv
import math
import sys
import threading

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, backend, data, nn, random
from minicnn.training import Preprocessing, TrainingError, checkpoint, fit, pretrained

QUIET = {"progress": False, "epochs": 2, "batch_size": 16}


def pictures(n=60, shape=(1, 8, 6), classes=3, seed=0):
    """uint8 (n, *shape) of so many classes, each brighter than the one before, and int64 labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(0, 60, (n, *shape)) + 60 * y.reshape(-1, *[1] * len(shape))
    return x.astype(np.uint8), y


def network(channels=1, size=(8, 6), classes=3, dropout=0.0):
    minicnn.manual_seed(1)
    layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(4 * (size[0] // 2) * (size[1] // 2), classes))


def bits(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def without_times(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history]


def fitted_bits(x, y, validation=0.2, **options):
    model = network(**{k: options.pop(k) for k in ("channels", "classes", "dropout") if k in options})
    history = fit(model, (x, y), validation, **{**QUIET, **options})
    return bits(model), without_times(history)


# What it gives


def test_it_learns_and_ends_with_the_best_epoch():
    x, y = pictures(120)
    test = pictures(30, seed=1)
    model = network()
    history = fit(model, (x, y), progress=False, epochs=8, batch_size=16, lr=0.01)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6, 7, 8]
    found = minicnn.evaluate(model, test)
    assert found.accuracy == 1 and found.predictions.tolist() == test[1].tolist()
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_best_epoch_is_restored_not_the_last():
    """A rate that rises to 10 spoils the network behind the first epochs."""
    x, y = pictures(120)
    held_out = pictures(30, seed=1)
    model, seen = network(), []
    history = fit(
        model, (x, y), held_out, progress=False, epochs=4, batch_size=16, optimizer="sgd", lr=20.0, clip_norm=1.0,
        schedule="linear", knots=((0.0, 0.001), (0.5, 0.001), (0.75, 1.0), (1.0, 1.0)),
        on_epoch=lambda row: seen.append(bits(model)),
    )  # fmt: skip
    best = history.best
    assert best["epoch"] < 4 and bits(model) == seen[best["epoch"] - 1] != seen[-1]
    found = minicnn.evaluate(model, held_out)
    assert (found.loss, found.accuracy) == pytest.approx((best["validation_loss"], best["validation_accuracy"]), 1e-5)


def test_averaged_weights_are_what_the_model_has_in_the_end():
    x, y = pictures()
    plain, averaged = (fitted_bits(x, y, ema=ema)[0] for ema in (0.0, 0.9))
    assert plain != averaged
    model = network()
    history = fit(model, (x, y), pictures(seed=1), **QUIET, ema=0.9)
    assert minicnn.evaluate(model, pictures(seed=1)).loss == pytest.approx(history.best["validation_loss"], rel=1e-5)


def test_the_same_seed_gives_the_same_bits_eager_and_compiled_agree():
    x, y = pictures()
    found = fitted_bits(x, y, dropout=0.3, augment={"flip": 0.5, "shift": 1})
    random.default_generator.key()  # of somebody else
    assert fitted_bits(x, y, dropout=0.3, augment={"flip": 0.5, "shift": 1}) == found
    assert fitted_bits(x, y, dropout=0.3, augment=data.Augment(flip=0.5, shift=1)) == found
    assert fitted_bits(x, y, dropout=0.3, flip=0.5, shift=1) == found
    assert fitted_bits(x, y, dropout=0.3, augment={"flip": 0.5, "shift": 1}, seed=1)[0] != found[0]
    eager = fitted_bits(x, y, dropout=0.3, augment={"flip": 0.5, "shift": 1}, eager=True)
    losses = [[row["train_loss"] for row in rows] for _, rows in (found, eager)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_streams_of_others_stay():
    x, y = pictures()
    before = random.get_state()
    fit(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 3)), (x, y), **QUIET)
    after = random.get_state()
    random.manual_seed(0)
    nn.Linear(48, 3)
    assert random.get_state()["host"] == after["host"] and before["keys"] == after["keys"]


def test_two_threads_give_the_bits_of_each_alone():
    runs = [pictures(seed=seed) for seed in (2, 3)]
    models = [network(dropout=0.4) for _ in runs] + [network(dropout=0.4) for _ in runs]
    for model, run in zip(models, runs, strict=False):
        fit(model, run, **QUIET, lr=0.01)
    threads = [
        threading.Thread(target=fit, args=(model, run), kwargs={**QUIET, "lr": 0.01})
        for model, run in zip(models[2:], runs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bits(model) for model in models[2:]] == [bits(model) for model in models[:2]]


# What it takes


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_layouts_are_one_picture(channels):
    x, y = pictures(shape=(channels, 8, 6))
    expected = fitted_bits(x, y, channels=channels)
    assert fitted_bits(x.transpose(0, 2, 3, 1), y, channels=channels) == expected
    assert fitted_bits(x.transpose(0, 2, 3, 1), y, channels=channels, layout="NHWC") == expected
    assert fitted_bits(x, y, channels=channels, layout="NCHW") == expected
    if channels == 1:
        assert fitted_bits(x[:, 0], y) == expected


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "uint64"])
def test_labels_of_any_whole_numbers(dtype):
    x, y = pictures(classes=2)
    assert fitted_bits(x, y.astype(dtype), classes=2) == fitted_bits(x, y, classes=2)


def test_arrays_of_any_order_are_left_as_they_are():
    x, y = pictures()
    expected = fitted_bits(x, y)
    fortran, strided, reversed_x = np.asfortranarray(x), np.repeat(x, 2, axis=3)[..., ::2], x[:, :, ::-1][:, :, ::-1]
    frozen = x.copy(), y.copy()
    for array in frozen:
        array.flags.writeable = False
    for images, labels in ((fortran, y), (strided, np.repeat(y, 2)[::2]), (reversed_x, y), frozen):
        before = images.copy(), labels.copy()
        assert fitted_bits(images, labels) == expected
        assert np.array_equal(images, before[0]) and np.array_equal(labels, before[1])
    assert fitted_bits(Tensor(x), y.tolist()) == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_of_any_range_are_scaled_to_mean_0_and_deviation_1(dtype):
    x, y = pictures(shape=(2, 8, 6))
    x = (x * np.array([10.0, -0.5]).reshape(2, 1, 1) + 3).astype(dtype)
    model = network(channels=2)
    fit(model, (x, y), None, **QUIET)
    assert model.preprocessing.pixels == "float32"
    np.testing.assert_allclose(model.preprocessing.mean, x.astype(np.float64).mean((0, 2, 3)), rtol=1e-3)
    np.testing.assert_allclose(model.preprocessing.std, x.astype(np.float64).std((0, 2, 3)), rtol=1e-3)


def test_uint8_is_scaled_by_its_statistics():
    x, y = pictures()
    model = network()
    fit(model, (x, y), None, **QUIET)
    np.testing.assert_allclose(model.preprocessing.mean, [x.mean() / 255], rtol=1e-6)
    np.testing.assert_allclose(model.preprocessing.std, [x.std() / 255], rtol=1e-6)
    inputs = ((x[:5] / 255 - x.mean() / 255) / (x.std() / 255)).astype(np.float32)
    logits = model(Tensor(inputs)).numpy().astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(minicnn.predict(model, x[:5]), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("validation", "options", "message"),
    [
        (pictures(shape=(1, 10, 6)), {}, r"it does not take pictures \(C, H, W\) of \(1, 10, 6\)"),
        (0.2, {"tta": True, "tta_shift": 6}, r"a tta_shift smaller than the pictures, \(8, 6\), received 6"),
    ],
)
def test_what_fails_in_validation_is_said_before_a_weight_changes(validation, options, message):
    model = network()
    before = bits(model)
    with pytest.raises(ValueError, match=message):
        fit(model, pictures(), validation, **QUIET, **options)
    assert bits(model) == before and not hasattr(model, "preprocessing")


def test_a_csv_that_is_a_folder_is_said_before_a_weight_changes(tmp_path):
    model = network()
    before = bits(model)
    for path in (tmp_path, ""):
        with pytest.raises(IsADirectoryError, match="expected csv as a file"):
            fit(model, pictures(), **QUIET, csv=path)
    assert bits(model) == before


def test_class_weights_of_numpy_in_a_list():
    x, y = pictures()
    expected = fitted_bits(x, y, class_weights=[1.0, 2.0, 0.5])
    assert fitted_bits(x, y, class_weights=[np.float32(1), np.int64(2), np.float64(0.5)]) == expected


def test_a_dataset_of_other_classes_is_not_evaluated():
    x, y = pictures(classes=2)
    model = network(classes=2)
    fit(model, (x, y), **QUIET, classes=["dark", "bright"])
    with pytest.raises(
        ValueError, match=r"evaluate: expected the classes \('dark', 'bright'\), received \('bright', 'dark'\)"
    ):
        minicnn.evaluate(model, data.Dataset(x, 1 - y, ("bright", "dark"), "other"))


def test_validation_is_split_off_by_class_or_given():
    x, y = pictures(90)
    sizes = []
    for validation in (
        0.2,
        18,
        np.float64(0.2),
        np.int64(18),
        (x[:18], y[:18]),
        data.Dataset(x[:18], y[:18], ("0", "1", "2"), "v"),
    ):
        history = fit(network(), (x, y), validation, **QUIET)
        accuracy = history[0]["validation_accuracy"] * 18
        assert accuracy == pytest.approx(round(accuracy), abs=1e-9)
        sizes.append(len(history))
    for validation in (None, 0):
        history = fit(network(), (x, y), validation, **QUIET)
        assert "validation_loss" not in history[0] and history.best is history[-1]


def test_a_data_set_brings_its_classes():
    x, y = pictures()
    dataset = data.Dataset(x, y, ("dark", "grey", "bright"), "mine")
    model = network()
    fit(model, dataset, **QUIET)
    assert model.preprocessing.classes == ("dark", "grey", "bright")
    twin = network()
    fit(twin, (x, y), **QUIET)
    assert bits(twin) == bits(model)
    assert minicnn.evaluate(model, dataset).classes == ("dark", "grey", "bright")


def test_classes_have_names():
    x, y = pictures()
    model = network()
    fit(model, (x, y), **QUIET, classes=["dark", "grey", "bright"])
    report = minicnn.evaluate(model, (x, y)).report()
    assert [row["class"] for row in report["per_class"]] == ["dark", "grey", "bright"]
    fit(model, (x, y), **QUIET)
    assert model.preprocessing.classes == ("dark", "grey", "bright")


# What it refuses

X, Y = pictures(12)
FLOATS = X.astype(np.float32)
NAN = FLOATS.copy()
NAN[7, 0, 2, 2] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((12, 3, 8, 3), np.uint8), Y, {}, r"fit: the shape \(12, 3, 8, 3\) does not .*layout=\"NCHW\" or lay"),
        (np.zeros((12, 9, 8, 7), np.uint8), Y, {}, r"does not tell which axis has the channels"),
        (np.zeros((12, 8), np.uint8), Y, {}, r"expected pictures \(N, H, W\), .* received shape \(12, 8\)"),
        (X, Y, {"layout": "NHWC"}, r"does not take pictures \(C, H, W\) of \(6, 1, 8\)"),
        (X, Y, {"layout": "NHW"}, r"expected pictures \(N, H, W\), received shape .*layout="),
        (X, Y, {"layout": "NWHC"}, r"layout: expected one of NCHW, NHWC, NHW, received 'NWHC'; did you mean 'NHWC'"),
        (X[:0], Y[:0], {}, r"expected pictures with pixels, received shape \(0, 1, 8, 6\)"),
        (NAN, Y, {}, "expected finite pixels, picture 7 has NaN or infinities"),
        (np.full((12, 1, 8, 6), 1e300), Y, {}, "expected finite pixels, picture 0 has"),
        (np.full((12, 1, 8, 6), 1e33), Y, {}, r"expected pixels of up to 1e\+30, received larger ones"),
        (X.astype(np.int64), Y, {}, r"expected pixels of uint8 or floats, received int64; x.astype\(np.uint8\)"),
        (X > 50, Y, {}, "expected pixels of uint8 or floats, received bool"),
        (X, Y[:, None], {}, r"expected labels \(N,\), received shape \(12, 1\); pass y\[:, 0\]"),
        (X, np.eye(3)[Y], {}, r"expected labels \(N,\), received shape \(12, 3\); of one-hot rows pass y.argmax\(1\)"),
        (X, Y.astype(float), {}, r"expected labels of integers, received float64; take y.astype\(np.int64\)"),
        (X, np.array(["a", "b", "c"])[Y], {}, "received <U1; take classes, y = np.unique"),
        (X, Y[:-1], {}, r"expected as many labels as pictures, 12, received shape \(11,\)"),
        (X, Y + 1, {}, "record 2 has label 3, expected one in 0..2"),
        (X, Y - 1, {}, "record 0 has label -1, expected one in 0..2"),
        (X, np.where(Y == 0, 2**63, Y).astype(np.uint64), {}, "record 0 has label 9223372036854775808"),
        (X, Y, {"classes": ["a", "b"]}, r"expected 3 classes, as the model has logits, received 2: \('a', 'b'\)"),
        (
            X,
            Y,
            {"validation": True},
            "expected validation as .x, y., a share, a number of pictures or None, received T",
        ),
        (X, Y, {"classes": "abc"}, "expected classes as a list of names, received the text 'abc'"),
        (X, Y, {"validation": 1.5}, "cannot split 1.5 .*expected a share above 0 and below 1"),
        (X, Y, {"validation": (X, Y + 1)}, "fit: validation: record 2 has label 3"),
        (X, Y, {"validation": (FLOATS, Y)}, "fit: validation: expected pixels of uint8.*received float32"),
        (X, Y, {"validation": X}, "expected a pair .x, y. of pictures and labels, or a Dataset, received ndarray"),
        (X, Y, {"validation": None, "early_stop": 2}, "expected validation images with them"),
        (X, Y, {"shift": 8}, "expected a shift smaller than the pictures"),
        (X, Y, {"momentum": 0.8}, "momentum: expected optimizer sgd with it, received optimizer adamw"),
        (X, Y, {"lr": 0}, "lr: expected a number above 0, received 0"),
        (X, Y, {"optimizer": "adamv"}, "optimizer: expected one of .*did you mean 'adam'"),
        (X, Y, {"class_weights": "balance"}, "class_weights: expected balanced or a list.*received 'balance'"),
        (X, Y, {"class_weights": {0: 1.0}}, "class_weights: expected balanced or a list.*received {0: 1.0}"),
        (X, Y, {"class_weights": [1, 2]}, "class_weights: expected 3 numbers, received 2"),
        (X, Y, {"class_weights": [1, 2, math.nan]}, "class_weights: expected balanced or a list"),
        (X, Y % 2, {"class_weights": "balanced"}, "expected a training image of each class .*none of 2"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_changes(x, y, options, message):
    model = network()
    before = bits(model)
    with pytest.raises(ValueError, match=message):
        fit(model, (x, y), **{**QUIET, **options})
    assert bits(model) == before and all(module.training for module in model.modules())
    assert not hasattr(model, "preprocessing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentun": 0.9}, "fit: unknown options: 'momentun'; did you mean 'momentum'?"),
        ({"weights": "lenet"}, "fit: unknown options: 'weights'"),
        ({"augment": {"flop": 0.5}}, "fit: unknown augment: 'flop'; did you mean 'flip'?"),
        ({"augment": {"flip": 0.5}, "flip": 0.5}, "expected flip once"),
        ({"augment": 0.5}, "expected augment as a mapping or an Augment, received float"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(TypeError, match=message):
        fit(network(), (X, Y), **QUIET, **options)


class Own(nn.Module):
    """A network with an attribute of the name that fit uses."""

    def __init__(self):
        super().__init__()
        self.preprocessing = nn.Linear(48, 3)

    def forward(self, input):
        return self.preprocessing(input.reshape(len(input), -1))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (nn.Linear, TypeError, "fit: expected a Module, received the class Linear; write Linear"),
        (nn.Sequential(nn.Flatten()), ValueError, "expected a parameter to train, received none"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), ValueError, r"does not take pictures .* of \(1, 8, 6\): "),
        (nn.Sequential(nn.Linear(6, 3)), ValueError, r"expected logits \(N, K\), received shape \(1, 1, 8, 3\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 3).astype("float64")), ValueError, "take model.astype"),
        (Own(), ValueError, "expected a Preprocessing as Own.preprocessing, received Linear; rename that attribute"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_trained(model, error, message):
    with pytest.raises(error, match=message):
        fit(model, (X, Y), **QUIET)


def test_one_class_is_learned():
    x, _ = pictures()
    history = fit(network(classes=1), (x, np.zeros(60, int)), **QUIET)
    assert history[-1]["validation_accuracy"] == 1


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


# Afterwards


def test_answers_do_not_depend_on_the_size_of_batches_and_a_single_picture_is_a_row():
    x, y = pictures(30)
    model = network()
    fit(model, (x, y), **QUIET)
    whole = minicnn.predict(model, x)
    assert whole.shape == (30, 3) and whole.dtype == np.float32
    np.testing.assert_allclose(minicnn.predict(model, x, batch_size=7), whole, rtol=1e-5)
    single = minicnn.predict(model, x[4])
    assert single.shape == (3,)
    np.testing.assert_allclose(single, whole[4], rtol=1e-5)
    np.testing.assert_allclose(minicnn.predict(model, x.transpose(0, 2, 3, 1), layout="NHWC"), whole, rtol=1e-6)
    np.testing.assert_allclose(minicnn.predict(model, x[4, 0], layout="NHW"), whole[4], rtol=1e-5)


def test_threads_may_predict_with_one_model_while_another_is_trained():
    x, y = pictures(40)
    model, found = network(dropout=0.4), {}
    fit(model, (x, y), **QUIET)
    expected = minicnn.predict(model, x).tobytes()

    def ask(number):
        found[number] = {minicnn.predict(model, x).tobytes() for _ in range(5)}

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    trained = fitted_bits(x, y, dropout=0.4)
    for thread in threads:
        thread.join()
    assert found == {number: {expected} for number in range(3)} and trained == fitted_bits(x, y, dropout=0.4)


def test_arrays_that_are_not_those_of_the_training_are_refused():
    x, y = pictures(30)
    model = network()
    fit(model, (x, y), **QUIET)
    for wrong, message in (
        (x / 255, "expected pixels of uint8, as the model was trained on, received float"),
        (
            x[:, [0, 0]],
            r"expected pictures of 1 channels, .* received 2, as images .* of \(30, 2, 8, 6\)",
        ),
        (x[None], "expected pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            minicnn.predict(model, wrong)
        with pytest.raises(ValueError, match=message):
            minicnn.evaluate(model, (wrong, y))


def test_a_model_that_was_never_fitted_takes_floats_as_they_are():
    x, y = pictures(6)
    model = network().eval()
    floats = x.astype(np.float32) / 100
    logits = model(Tensor(floats)).numpy().astype(float)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(minicnn.predict(model, floats), expected, rtol=1e-5)
    found = minicnn.evaluate(model, (floats, y))
    assert found.loss == pytest.approx(-np.log(expected[np.arange(6), y]).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="expected floats .* minicnn.fit did not train this model, received uint8; or"):
        minicnn.predict(model, x)
    model.preprocessing = Preprocessing((0,), (100 / 255,))
    np.testing.assert_allclose(minicnn.predict(model, x), expected, rtol=1e-5)


def test_evaluation_of_arrays():
    x, y = pictures(30)
    model = network()
    fit(model, (x, y), **QUIET, classes=("a", "b", "c"))
    found = minicnn.evaluate(model, (x, y))
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (y, found.predictions), 1)
    assert found.confusion_matrix.tolist() == matrix.tolist()
    assert found.report()["accuracy"] == found.accuracy == np.trace(matrix) / 30
    with pytest.raises(ValueError, match="evaluate: record 0 has label 3"):
        minicnn.evaluate(model, (x, y + 3))


def test_a_second_fit_goes_on_with_the_same_scaling_and_so_does_a_copy(tmp_path):
    x, y = pictures()
    model = network()
    fit(model, (x[:, 0], y), **QUIET)
    known = model.preprocessing
    assert known.layout == "NHW"
    twin = copy.deepcopy(model)
    assert twin.preprocessing == known
    brighter = (x // 2 + 100).astype(np.uint8)
    fit(twin, (brighter[:, 0], y), **QUIET)
    assert twin.preprocessing == known
    with pytest.raises(ValueError, match=r"expected pictures \(N, H, W\), received shape .* say another layout"):
        fit(twin, (x, y), **QUIET)
    fit(twin, (x, y), **QUIET, layout="NCHW")
    assert (twin.preprocessing.mean, twin.preprocessing.layout) == (known.mean, "NCHW")


def test_shipped_weights_with_a_new_head():
    """Their scaling stays, their classes go."""
    x, y = pictures(40, shape=(32, 32, 3), classes=2)
    shipped = pretrained.load("lenet-cifar10", backend.get("numpy"))
    model = shipped.model
    with pytest.raises(
        ValueError, match="expected pictures of 3 channels, .* received 32, .*; say another layout by layout="
    ):
        fit(model, (x, y), **QUIET)
    model.fc3 = nn.Linear(84, 2)
    model.conv1.requires_grad_(False)
    before = model.conv1.weight.numpy().copy()
    history = fit(model, (x, y), progress=False, epochs=4, batch_size=6, layout="NHWC", classes=("dark", "bright"))
    assert history.best["validation_accuracy"] == 1
    assert np.array_equal(model.conv1.weight.numpy(), before)
    assert model.preprocessing.mean == shipped.preprocessing.mean
    assert model.preprocessing.classes == ("dark", "bright") and model.preprocessing.layout == "NHWC"
    assert minicnn.predict(model, x[0]).argmax() == 0


@pytest.mark.parametrize("suffix", [".safetensors", ".h5"])
def test_save_and_load(tmp_path, suffix):
    if suffix == ".h5":
        pytest.importorskip("h5py")
    x, y = pictures()
    model, path = network(), tmp_path / f"mine{suffix}"
    fit(model, (x, y), **QUIET, classes=("a", "b", "c"))
    minicnn.save(model, path)
    twin = minicnn.load(path, network().eval())
    assert bits(twin) == bits(model) and twin.preprocessing == model.preprocessing
    assert minicnn.predict(twin, x).tobytes() == minicnn.predict(model, x).tobytes()
    bare = network()
    minicnn.save(bare, path)
    assert bits(minicnn.load(path, network())) == bits(bare)
    with pytest.raises(ValueError, match="load_state_dict: Sequential differs"):
        minicnn.load(path, network(classes=2))
    with pytest.raises(
        checkpoint.CheckpointError, match=r"expected the name of the network too; load the file by minicnn.load"
    ):
        pretrained.load(path, backend.get("numpy"))


def test_load_takes_the_weights_of_a_run_and_refuses_its_state(trainer, tmp_path):
    run = trainer()
    checkpoint.save(tmp_path / "best.safetensors", *run.weights())
    checkpoint.save(tmp_path / "last.safetensors", *run.state())
    model = minicnn.load(tmp_path / "best.safetensors", minicnn.models.LeNet(3))
    assert bits(model) == bits(run.model) and model.preprocessing == run.preprocessing
    images = run.splits.test.images
    assert minicnn.predict(model, images).tobytes() == minicnn.predict(run.model, images).tobytes()
    with pytest.raises(checkpoint.CheckpointError, match="received the state of a run; its weights are best"):
        minicnn.load(tmp_path / "last.safetensors", minicnn.models.LeNet(3))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"mean": [0.5], "std": [0.5, 0.5], "classes": []}, "expected one mean and one deviation"),
        ({"mean": [], "std": [], "classes": []}, "expected one mean and one deviation"),
        ({"mean": [0.5], "std": [0], "classes": []}, r"std\[0\]: expected a number from 1e-30"),
        ({"mean": [0.5], "std": [1], "classes": [], "layout": "HWCN"}, "layout: expected one of"),
        (3, "expected a mapping"),
    ],
)
def test_damaged_preprocessing_in_a_file(tmp_path, described, message):
    model = nn.Linear(2, 2)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    checkpoint.save(tmp_path / "w.safetensors", arrays, {"kind": "network", "preprocessing": described})
    with pytest.raises(checkpoint.CheckpointError, match=message):
        minicnn.load(tmp_path / "w.safetensors", model)


@pytest.mark.parametrize("std", [0.0, -1.0, 1e-35, 1e35, math.inf, math.nan])
def test_a_deviation_that_no_file_could_keep(std):
    with pytest.raises(ValueError, match="expected one mean and one deviation above 0"):
        Preprocessing((0.5,), (std,))


def test_classes_of_a_preprocessing_are_several_names():
    assert Preprocessing((0.5,), (0.5,), ["a", "b"]).classes == ("a", "b")
    with pytest.raises(ValueError, match="expected classes as names, received the text 'ab'"):
        Preprocessing((0.5,), (0.5,), "ab")
