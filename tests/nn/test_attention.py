"""Multi-head attention beside PyTorch's layer of that name, with the same weights."""

import math

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, gradcheck, nn

CASES = {  # embed_dim, num_heads, options, length of query and of key
    "self": (12, 3, {}, 5, 5),
    "batch first": (12, 3, {"batch_first": True}, 5, 5),
    "cross, batch first": (8, 2, {"batch_first": True}, 3, 7),
    "cross": (8, 2, {}, 3, 7),
    "one head bare": (5, 1, {"bias": False}, 1, 4),
    "a head a channel": (4, 4, {}, 6, 2),
}


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def made(name):
    """The layer in float64 with weights drawn anew, its state, and three inputs."""
    dim, heads, options, length, source = CASES[name]
    layer = nn.MultiheadAttention(dim, heads, **options).astype(np.float64)
    state = {n: values(*t.shape, seed=i) for i, (n, t) in enumerate(layer.state_dict().items())}
    layer.load_state_dict(state)
    first = options.get("batch_first", False)
    inputs = [values(*((2, n) if first else (n, 2)), dim, seed=9 + i) for i, n in enumerate((length, source, source))]
    return layer, state, inputs


@pytest.mark.parametrize("name", CASES)
def test_layer_agrees_with_torch(name, backend_name, torch, like_torch, close):
    layer, state, inputs = made(name)
    dim, heads, options, *_ = CASES[name]
    twin = torch.nn.MultiheadAttention(dim, heads, **options).double()
    assert {n: tuple(t.shape) for n, t in twin.state_dict().items()} == {n: a.shape for n, a in state.items()}
    twin.load_state_dict({n: torch.tensor(a) for n, a in state.items()})
    like_torch(lambda q, k, v: layer(q, k, v)[0], lambda q, k, v: twin(q, k, v)[0], *inputs)
    theirs = dict(twin.named_parameters())
    scale = max(np.abs(p.grad.numpy()).max() for p in theirs.values())
    for n, p in layer.named_parameters():  # the gradient for the bias of the keys is 0 but for rounding
        np.testing.assert_allclose(p.grad.numpy(), theirs[n].grad.numpy(), rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("options", [{}, {"average_attn_weights": False}, {"need_weights": False}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_torch(name, options, torch):
    layer, state, inputs = made(name)
    dim, heads, made_with, *_ = CASES[name]
    twin = torch.nn.MultiheadAttention(dim, heads, **made_with).double()
    twin.load_state_dict({n: torch.tensor(a) for n, a in state.items()})
    _, found = layer(*map(Tensor, inputs), **options)
    _, expected = twin(*map(torch.tensor, inputs), **options)
    assert (found is None) == (expected is None)
    if found is not None:
        np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-10)


def test_masks_are_refused():
    layer, x = nn.MultiheadAttention(8, 2), Tensor(np.zeros((2, 3, 8), np.float32))
    for name in ("key_padding_mask", "attn_mask"):
        with pytest.raises(ValueError, match="expected no mask"):
            layer(x, x, x, **{name: x})


@pytest.mark.parametrize("name", CASES)
def test_layer_and_its_parameters_pass_gradcheck(name, backend_name):
    layer, state, inputs = made(name)

    def function(q, k, v, weight, *biases):
        object.__setattr__(layer, "in_proj_weight", weight)
        object.__setattr__(layer, "in_proj_bias", biases[0] if biases else None)
        return layer(q, k, v)[0]

    inputs += [state[n] for n in ("in_proj_weight", "in_proj_bias") if n in state]
    assert gradcheck(function, [Tensor(a, requires_grad=True) for a in inputs]) < 1e-6


def test_initial_weights_are_those_of_torch(torch):
    """The projections of query, key and value start within the bound of Xavier for the matrix of all three."""
    bound = math.sqrt(6 / (4 * 64))
    for library in (nn, torch.nn):  # one and the same claim of both
        layer = library.MultiheadAttention(64, 4)
        weight, outward = (np.asarray(p.detach().numpy()) for p in (layer.in_proj_weight, layer.out_proj.weight))
        assert 0.99 * bound < np.abs(weight).max() <= np.float32(bound)
        assert 0.99 / 8 < np.abs(outward).max() <= 1 / 8
        assert not layer.in_proj_bias.detach().numpy().any() and not layer.out_proj.bias.detach().numpy().any()


def test_dropout_follows_the_mode():
    layer, x = nn.MultiheadAttention(8, 2, dropout=0.5), Tensor(values(2, 6, 8).astype(np.float32))
    first = layer(x, x, x)[0].numpy()
    assert not np.array_equal(first, layer(x, x, x)[0].numpy())
    layer.eval()
    np.testing.assert_array_equal(layer(x, x, x)[0].numpy(), layer(x, x, x)[0].numpy())
    layer.train().dropout = 0.0
    np.testing.assert_array_equal(layer(x, x, x)[0].numpy(), layer.eval()(x, x, x)[0].numpy())


@pytest.mark.parametrize("batch_first", [False, True])
def test_compiled_is_eager(batch_first):
    layer = nn.MultiheadAttention(16, 4, batch_first=batch_first)

    def step(x):
        layer.zero_grad()
        y, _ = layer(x, x, x, need_weights=False)
        (y * y).mean().backward()
        return y, *(p.grad for p in layer.parameters())

    compiled = minicnn.compile(step)
    for seed in range(2):
        x = Tensor(values(3, 9, 16, seed=seed).astype(np.float32))
        for found, expected in zip(compiled(x), step(x), strict=True):
            scale = np.abs(expected.numpy()).max()
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6 * max(scale, 1e-2))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((10, 4), "MultiheadAttention: expected embed_dim as a multiple of num_heads.* received 10 and 4"),
        ((0, 1), "MultiheadAttention: expected embed_dim as an integer from 1, received 0"),
        ((8, 2, 1.5), r"MultiheadAttention: expected dropout in \[0, 1\], received 1.5"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.MultiheadAttention(*arguments)


def test_other_inputs_are_errors():
    layer, x = nn.MultiheadAttention(8, 2), Tensor(np.zeros((2, 3, 8), np.float32))
    with pytest.raises(ValueError, match=r"MultiheadAttention: expected \(L, N, 8\), received shape \(3, 8\)"):
        layer(x[0], x[0], x[0])
    with pytest.raises(ValueError, match=r"MultiheadAttention: expected \(N, L, 8\), received shape \(3, 8\)"):
        nn.MultiheadAttention(8, 2, batch_first=True)(x[0], x[0], x[0])
    with pytest.raises(ValueError, match=r"linear: expected an input \(..., 8\), received shape \(2, 3, 7\)"):
        layer(x, x[:, :, :7], x)
    with pytest.raises(ValueError, match="attention: expected query"):
        layer(x, x, x[:1])
