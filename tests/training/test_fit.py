"""fit: any network on any arrays, what it gives and what it takes."""

import threading

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, data, nn, random
from minicnn.training import fit
from shared.fitting import QUIET, bits, fitted_bits, network, pictures

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
