"""Scaled dot-product attention, beside PyTorch's and by what its definition implies."""

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor, gradcheck
from minicnn.functional.attention import packed_attention

SHAPES = {  # query, key, value
    "self": ((2, 3, 5, 4),) * 3,
    "cross": ((3, 2, 7), (3, 6, 7), (3, 6, 4)),
    "one matrix": ((1, 3), (9, 3), (9, 1)),
    "long rows": ((2, 3, 8), (2, 67, 8), (2, 67, 8)),
}


def arrays(name, factor=1.0):
    rng = np.random.default_rng(2)
    return [factor * rng.standard_normal(shape) for shape in SHAPES[name]]


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("name", SHAPES)
def test_attention_agrees_with_torch(name, scale, dtype, backend_name, like_torch, torch):
    like_torch(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=scale),
        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale),
        *arrays(name),
        dtype=dtype,
    )


@pytest.mark.parametrize("name", SHAPES)
def test_attention_passes_gradcheck(name, backend_name):
    inputs = [Tensor(a, requires_grad=True) for a in arrays(name)]
    assert gradcheck(F.scaled_dot_product_attention, inputs) < 1e-6


def test_a_key_that_fits_takes_all_and_equal_keys_take_the_mean(backend_name):
    value = arrays("cross")[2].astype(np.float32)
    keys = np.eye(6, 7, dtype=np.float32)[None].repeat(3, 0)
    found = F.scaled_dot_product_attention(Tensor(1e4 * keys), Tensor(keys), Tensor(value))
    np.testing.assert_array_equal(found.numpy(), value)
    found = F.scaled_dot_product_attention(Tensor(keys), Tensor(np.ones_like(keys)), Tensor(value))
    np.testing.assert_allclose(found.numpy(), value.mean(1, keepdims=True).repeat(6, 1), rtol=1e-5, atol=1e-6)


def test_dropout_drops_weights(backend_name):
    size = 50
    zeros, eye = Tensor(np.zeros((size, 3))), Tensor(np.eye(size))
    weights = F.scaled_dot_product_attention(zeros, zeros, eye, dropout_p=0.25).numpy() * size
    kept = weights > 0
    np.testing.assert_allclose(weights[kept], 1 / 0.75)
    assert abs(kept.mean() - 0.75) < 0.04  # 4.6 deviations of 2500 draws


def test_errors():
    q, k, v = (Tensor(a) for a in arrays("cross"))
    with pytest.raises(ValueError, match=r"attention: expected query \(\.\.\., L, E\).* received shapes \(3, 6, 7\)"):
        F.scaled_dot_product_attention(k, v, k)
    with pytest.raises(ValueError, match="attention: expected query"):
        F.scaled_dot_product_attention(q, k, v[:, :5])
    with pytest.raises(ValueError, match="attention: expected query"):
        F.scaled_dot_product_attention(q[:2], k, v)
    with pytest.raises(ValueError, match="attention: expected query"):
        F.scaled_dot_product_attention(q[0, 0], k[0, 0], v[0, 0])
    with pytest.raises(TypeError, match="scaled_dot_product_attention: expected value as float64"):
        F.scaled_dot_product_attention(q, k, v.astype("float32"))
    with pytest.raises(ValueError, match=r"dropout: expected p in \[0, 1\], received 1.5"):
        F.scaled_dot_product_attention(q, k, v, dropout_p=1.5)


@pytest.mark.parametrize("length, heads, width", [(5, 1, 4), (9, 3, 2), (1, 2, 5)])
def test_packed_attention_is_that_of_each_head(length, heads, width):
    x = np.random.default_rng(0).standard_normal((2, length, 3 * heads * width))
    parts = x.reshape(2, length, 3, heads, width).transpose(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(*map(Tensor, parts)).numpy().transpose(0, 2, 1, 3)
    found = packed_attention(Tensor(x), heads).numpy()
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-12, atol=1e-14)
    assert gradcheck(lambda qkv: packed_attention(qkv, heads), [Tensor(x, requires_grad=True)]) < 1e-6


@pytest.mark.parametrize("shape, heads", [((2, 5, 12), 5), ((5, 12), 2), ((2, 5, 10), 1)])
def test_packed_attention_of_other_shapes(shape, heads):
    with pytest.raises(ValueError, match=r"packed_attention: expected \(N, L, .* times .*received shape"):
        packed_attention(Tensor(np.zeros(shape)), heads)
