"""evaluate, predict, save and load, of a network that was fitted to arrays."""

import copy
import math
import threading

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, backend, nn
from minicnn.training import Preprocessing, checkpoint, fit, pretrained
from shared.fitting import QUIET, bits, fitted_bits, network, pictures


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
