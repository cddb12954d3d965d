"""On a GPU: every kernel against the reference on NumPy arrays, and training against training on the CPU."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import backend, models, nn
from minicnn.backend.reference import Kernels as reference
from minicnn.data import Augment, Dataset, Loader
from shared.contract import CASES, LAYOUTS, NAMES, PRODUCTS, ROUNDINGS, check, check_rounded, prepare

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu():
    with backend.use("cupy") as chosen:
        yield chosen


def test_layouts_are_those_of_the_host(gpu):
    case = CASES["relu_grad"][-1]  # with an array of which one number is in memory
    for layout in LAYOUTS:
        there, here = (prepare("relu_grad", case, np.float32, layout, xp) for xp in (gpu.xp, np))
        assert [a.strides for a in there] == [a.strides for a in here], layout
        assert there[0].strides == (0, 0) and there[1].flags.c_contiguous == (layout == "contiguous"), layout


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_cuda_agrees_with_reference(gpu, name, dtype):
    for layout in LAYOUTS:
        check(gpu.kernels, name, dtype, 1e-4 if dtype is np.float32 else 1e-11, layout, gpu.xp)


@pytest.mark.parametrize("name", NAMES)
def test_reference_runs_on_the_gpu(gpu, name):
    check(reference, name, np.float64, 1e-11, xp=gpu.xp)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_rounded_operands(gpu, name, rounding):
    check_rounded(gpu.kernels, name, rounding, 1e-5, gpu.xp)


def lenet_run(name, steps=20):
    """Initial weights, losses and final weights of LeNet on random pictures, as NumPy arrays."""
    with backend.use(name) as chosen:
        minicnn.manual_seed(1)
        model = models.create("lenet")
        initial = {key: tensor.numpy().copy() for key, tensor in model.state_dict().items()}
        optimizer = minicnn.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
        rng, losses = np.random.default_rng(2), []
        for _ in range(steps):
            images = chosen.asarray(rng.standard_normal((32, 3, 32, 32), dtype=np.float32))
            labels = chosen.asarray(rng.integers(0, 10, 32))
            loss = F.cross_entropy(model(minicnn.Tensor(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return initial, losses, {key: tensor.numpy() for key, tensor in model.state_dict().items()}


def test_lenet_trains_as_on_the_cpu(gpu):
    initial, losses, _ = lenet_run("cupy")
    expected_initial, expected, _ = lenet_run("numpy")
    for key, array in expected_initial.items():
        np.testing.assert_array_equal(initial[key], array)
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


def test_same_seed_same_bits(gpu):
    (_, losses, weights), (_, losses_again, weights_again) = lenet_run("cupy"), lenet_run("cupy")
    assert losses == losses_again
    for key, array in weights.items():
        np.testing.assert_array_equal(array, weights_again[key])


def test_same_masks_as_on_the_cpu(gpu):
    masks = {}
    for name in ("cupy", "numpy"):
        with backend.use(name):
            minicnn.manual_seed(5)
            layer = nn.Dropout(0.4)
            masks[name] = [layer(minicnn.tensor(np.ones((7, 33), np.float32))).numpy() for _ in range(2)]
    np.testing.assert_array_equal(masks["cupy"], masks["numpy"])


@pytest.mark.parametrize("channels, dtype", [(3, "uint8"), (1, "float32"), (5, "uint8")])
@pytest.mark.parametrize("padding_mode", ["reflect", "constant", "replicate"])
def test_batches_have_the_bits_of_the_cpu(gpu, padding_mode, channels, dtype):
    images = np.random.default_rng(0).integers(0, 256, (60, channels, 20, 32), dtype=np.uint8)
    images = images if dtype == "uint8" else images / np.float32(255)
    dataset = Dataset(images, np.arange(60) % 7, tuple("abcdefg"), "made")
    augment = Augment(
        0.5, 4, padding_mode, rotation=20, translate=0.1, shear=10, zoom=0.2, brightness=0.4, contrast=0.3,
        saturation=0.5, sharpness=3, erasing=0.7, cutout=5, mixup=0.4, cutmix=1.0, random_resized_crop=channels != 3,
    )  # fmt: skip
    scaling = {"mean": np.resize((0.5, 0.4, 0.3), channels), "std": np.resize((0.2, 0.3, 0.25), channels)}
    options = scaling | {"shuffle": True, "augment": augment, "image_size": 18 if channels != 3 else 0}
    there, here = (Loader(dataset, 16, backend=b, **options).epoch(1) for b in (gpu, backend.get("numpy")))
    for found, expected in zip(there, here, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(backend.to_numpy(one), other)


def test_arrays_that_are_moved_together(gpu):
    rng = np.random.default_rng(0)
    arrays = [
        rng.random(5) < 0.5, np.arange(7), rng.random((3, 4), dtype=np.float32).T, np.zeros((0, 2)), np.array(2.5),
        rng.integers(0, 9, (2, 3))[:, ::-1],
    ]  # fmt: skip
    found = gpu.asarrays(arrays)
    assert [type(a) for a in found] == [gpu.xp.ndarray] * 6 and gpu.asarrays([]) == []
    for a, expected in zip(found, arrays, strict=True):
        assert a.dtype == expected.dtype and a.shape == expected.shape
        np.testing.assert_array_equal(backend.to_numpy(a), expected)


def test_labels_out_of_range_raise(gpu):
    logits = minicnn.tensor(np.zeros((2, 3), np.float32))
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="labels from 0 to 2"):
            F.cross_entropy(logits, gpu.asarray(np.array(labels)))


def test_places_out_of_range_raise(gpu):
    x = minicnn.tensor(np.zeros((3, 4), np.float32))
    for index in ([3], np.array([-4]), (slice(None), gpu.asarray(np.array([[0], [4]]))), minicnn.tensor([5])):
        with pytest.raises(IndexError, match="out of bounds for axis"):
            x[index]
        with pytest.raises(IndexError, match="out of bounds for axis"):
            x[index] = 1.0


def test_other_than_integers_and_booleans_are_no_index(gpu):
    x = minicnn.tensor(np.zeros((3, 4), np.float32))
    for index in (1.0, np.float32(1), np.array([0.0]), "a"):
        with pytest.raises(IndexError):
            x[index]
    np.testing.assert_array_equal(x[[gpu.asarray(2), gpu.asarray(0)]].numpy(), np.zeros((2, 4)))


@pytest.mark.parametrize("index", [np.arange(1, 6), np.arange(6) > 0, slice(1, None)], ids=str)
def test_what_is_written_is_read_before(gpu, index):
    x = minicnn.tensor(np.arange(6.0))
    x[index] = x[:-1]
    np.testing.assert_array_equal(x.numpy(), [0, 0, 1, 2, 3, 4])


def test_arrays_and_lists_from_the_host_are_written(gpu):
    x = minicnn.tensor(np.zeros((2, 3), np.float32))
    x[0], x[1] = np.arange(3), [3, 4, 5]
    np.testing.assert_array_equal(x.numpy(), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(x.copy_(np.ones(3)).numpy(), np.ones((2, 3)))
