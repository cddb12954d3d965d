"""Random numbers: seeds, keys and masks."""

import json

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend
from minicnn.random import Generator, get_state, manual_seed, set_state


def split_mix(key, count):
    """SplitMix64 (Steele, Lea and Flood, 2014, figure 17) in Python integers."""
    mask, numbers = (1 << 64) - 1, []
    for _ in range(count):
        key = (key + 0x9E3779B97F4A7C15) & mask
        z = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def test_the_generator_of_masks_is_split_mix():
    """The first numbers of seed 1234567, as published with the algorithm."""
    assert split_mix(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("key", [0, 1234567, (1 << 64) - 1])
@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 0.999])
def test_masks_are_a_function_of_key_and_position(key, p, dtype, backend_name):
    kernels = backend.get(backend_name).kernels
    keep = np.array([n >> 40 >= round(p * 2**24) for n in split_mix(key, 210)])
    expected = np.where(keep, 1 / (1 - p), 0).astype(dtype)
    for shape in ((210,), (2, 3, 5, 7)):
        y = kernels.dropout(np.ones(shape, dtype), key, p)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected.reshape(shape), rtol=1e-6)
    picture = np.ones((2, 5, 7, 3), dtype).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(kernels.dropout(picture, key, p), expected.reshape(2, 3, 5, 7), rtol=1e-6)


def test_masks_are_the_same_on_every_backend():
    x, masks = Tensor(np.ones((31, 17), np.float32)), []
    for name in ("reference", "numpy"):
        manual_seed(4)
        with backend.use(name):
            masks.append([F.dropout(x, 0.4).numpy() for _ in range(3)])
    for one, two in zip(*masks, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(masks[0][0], masks[0][1])


@pytest.mark.gpu
def test_masks_are_the_same_on_the_gpu():
    x, key = np.ones((31, 17), np.float32), 987654321
    gpu = backend.get("cupy")
    expected = backend.get("reference").kernels.dropout(x, key, 0.4)
    np.testing.assert_array_equal(backend.to_numpy(gpu.kernels.dropout(gpu.asarray(x), key, 0.4)), expected)


def test_keys_differ_and_follow_from_the_seed():
    one, two, other = Generator(7), Generator(7), Generator(8)
    keys = [one.key() for _ in range(1000)]
    assert keys == [two.key() for _ in range(1000)] and len(set(keys)) == 1000
    assert all(0 <= key < 1 << 64 for key in keys)
    assert not set(keys) & {other.key() for _ in range(1000)}


def test_masks_of_neighbouring_keys_do_not_overlap():
    generator = Generator(0)
    streams = [set(split_mix(generator.key(), 500)) for _ in range(20)]
    assert len(set().union(*streams)) == 20 * 500


def draw():
    generator = minicnn.random.default_generator
    return generator.uniform(0, 1, (3,)).tolist(), generator.normal(0, 1, (2,)).tolist(), generator.key()


def test_manual_seed_starts_both_streams_anew():
    manual_seed(11)
    first = draw()
    assert draw() != first
    manual_seed(11)
    assert draw() == first
    manual_seed(12)
    assert draw() != first
    with pytest.raises(ValueError, match="seed: expected an integer from 0, received -1"):
        manual_seed(-1)


def test_the_state_goes_through_json():
    draw()
    state = json.loads(json.dumps(get_state()))
    first = draw()
    manual_seed(99)
    set_state(state)
    assert draw() == first


def test_host_numbers_do_not_disturb_numpy():
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    draw()
    manual_seed(1)
    assert np.random.random() == expected
