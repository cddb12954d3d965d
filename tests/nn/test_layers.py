"""Layers against the layers of PyTorch of the same name, with the same weights, in both modes."""

import numpy as np
import pytest

from minicnn import Tensor, gradcheck, nn

LAYERS = {  # name: layer, positional arguments, options, shape of the input
    "Conv2d": ("Conv2d", (4, 6, (3, 2)), {"stride": (1, 2), "padding": (2, 0), "groups": 2}, (2, 4, 7, 6)),
    "Conv2d bare": ("Conv2d", (3, 2, 3), {"bias": False, "padding": "same", "dilation": 2}, (1, 3, 5, 8)),
    "Linear": ("Linear", (5, 3), {}, (4, 5)),
    "Linear bare": ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    "BatchNorm1d": ("BatchNorm1d", (3,), {}, (6, 3)),
    "BatchNorm1d sequence": ("BatchNorm1d", (3,), {"momentum": 0.4, "eps": 1e-3}, (4, 3, 5)),
    "BatchNorm2d": ("BatchNorm2d", (3,), {}, (4, 3, 5, 2)),
    "BatchNorm2d bare": ("BatchNorm2d", (3,), {"affine": False}, (4, 3, 5, 2)),
    "BatchNorm2d untracked": ("BatchNorm2d", (3,), {"track_running_stats": False}, (4, 3, 5, 2)),
    "LayerNorm": ("LayerNorm", ((3, 4),), {"eps": 1e-3}, (5, 3, 4)),
    "LayerNorm bare": ("LayerNorm", (4,), {"elementwise_affine": False}, (5, 3, 4)),
    "MaxPool2d": ("MaxPool2d", ((3, 2),), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 7, 6)),
    "AvgPool2d": ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, (2, 3, 7, 6)),
    "AdaptiveAvgPool2d": ("AdaptiveAvgPool2d", ((3, 2),), {}, (2, 3, 7, 6)),
    "ReLU": ("ReLU", (), {}, (3, 4)),
    "LeakyReLU": ("LeakyReLU", (0.2,), {}, (3, 4)),
    "ELU": ("ELU", (0.7,), {}, (3, 4)),
    "GELU": ("GELU", (), {"approximate": "tanh"}, (3, 4)),
    "Sigmoid": ("Sigmoid", (), {}, (3, 4)),
    "Tanh": ("Tanh", (), {}, (3, 4)),
    "Softmax": ("Softmax", (1,), {}, (3, 4)),
    "LogSoftmax": ("LogSoftmax", (1,), {}, (3, 4)),
    "Flatten": ("Flatten", (), {}, (3, 4, 2)),
    "Flatten middle": ("Flatten", (1, 2), {}, (3, 4, 2, 5)),
    "Identity": ("Identity", (), {}, (3, 4)),
    "Dropout 0": ("Dropout", (0.0,), {}, (3, 4)),
    "Dropout 1": ("Dropout", (1.0,), {}, (3, 4)),
}


def make(name, library):
    kind, arguments, options, shape = LAYERS[name]
    return getattr(library, kind)(*arguments, **options), shape


def values(shape, seed=0):
    return np.random.default_rng(seed + 100).standard_normal(shape)


def randomized(layer):
    """The layer in float64, its weights and statistics drawn anew."""
    layer.astype(np.float64)
    state = {n: np.abs(values(t.shape, i)) + 0.1 for i, (n, t) in enumerate(layer.state_dict().items())}
    layer.load_state_dict(state)
    return layer, state


@pytest.mark.parametrize("name", LAYERS)
def test_layer_agrees_with_torch(name, backend_name, torch, like_torch, close):
    layer, shape = make(name, nn)
    twin = make(name, torch.nn)[0].double()
    layer, state = randomized(layer)
    expected = {n: tuple(t.shape) for n, t in twin.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert {n: t.shape for n, t in layer.state_dict().items()} == expected and list(layer.state_dict()) == list(
        expected
    )
    twin.load_state_dict({n: torch.tensor(a) for n, a in state.items()}, strict=False)
    for training in (True, False):
        layer.train(training)
        twin.train(training)
        layer.zero_grad()
        twin.zero_grad()
        like_torch(layer, twin, values(shape))
        for (n, mine), (m, other) in zip(layer.named_parameters(), twin.named_parameters(), strict=True):
            assert n == m
            close(mine.grad.numpy(), other.grad.numpy(), 1e-10)
        for n, buffer in layer.named_buffers():
            close(buffer.numpy(), twin.state_dict()[n].numpy(), 1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_and_its_parameters_pass_gradcheck(name, backend_name):
    layer, shape = make(name, nn)
    layer, state = randomized(layer)
    names = [n for n, _ in layer.named_parameters()]

    def function(x, *parameters):
        for n, p in zip(names, parameters, strict=True):
            object.__setattr__(layer, n, p)  # plain tensors, in place of the layer's own
        return layer(x)

    inputs = [Tensor(a, requires_grad=True) for a in (values(shape), *(state[n] for n in names))]
    assert gradcheck(function, inputs) < 1e-6


def test_convolution_followed_by_batch_norm_passes_gradcheck(backend_name):
    """The gradient of the convolution's bias is zero: batch norm takes any constant away."""
    conv, norm = randomized(nn.Conv2d(2, 3, 3))[0], randomized(nn.BatchNorm2d(3))[0]

    def function(x, bias):
        object.__setattr__(conv, "bias", bias)
        return norm(conv(x))

    assert gradcheck(function, [Tensor(values(s), requires_grad=True) for s in ((4, 2, 5, 6), (3,))]) < 1e-6


@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5]])
def test_losses_agree_with_torch(weight, torch, like_torch, backend_name):
    options = {"reduction": "sum", "label_smoothing": 0.1}
    labels = np.array([0, 2, 1, 1])
    ours = nn.CrossEntropyLoss(None if weight is None else Tensor(np.array(weight)), **options)
    theirs = torch.nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight).double(), **options)
    like_torch(lambda x: ours(x, labels), lambda x: theirs(x, torch.tensor(labels)), values((4, 3)))
    like_torch(nn.MSELoss("sum"), torch.nn.MSELoss(reduction="sum"), values((4, 3)), values((4, 3), 1))


def test_dropout_follows_the_mode():
    layer, x = nn.Dropout(0.5), Tensor(np.ones((50, 50)))
    assert set(np.unique(layer(x).numpy())) == {0, 2}
    assert layer.eval()(x) is x


def test_a_last_batch_of_one_image():
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match=r"more than one value a channel in training, received shape \(1, 3\)"):
        layer(Tensor(np.ones((1, 3), np.float32)))
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.eval()(Tensor(np.ones((1, 3), np.float32))).shape == (1, 3)
    assert nn.BatchNorm2d(3)(Tensor(np.ones((1, 3, 2, 1), np.float32))).shape == (1, 3, 2, 1)


def test_no_layer_is_left_out():
    elsewhere = {"Module", "ModuleList", "MultiheadAttention", "Parameter", "Sequential", "init"}
    elsewhere |= {"CrossEntropyLoss", "MSELoss"}
    assert {kind for kind, *_ in LAYERS.values()} == set(nn.__all__) - elsewhere


ERRORS = {
    "groups": (
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        "Conv2d: expected groups that divide .* received 3 -> 4, groups 2",
    ),
    "channels": (lambda: nn.Conv2d(0, 4, 3), "Conv2d: expected in_channels as an integer from 1, received 0"),
    "window": (lambda: nn.Conv2d(1, 4, (3, 0)), r"Conv2d: expected kernel_size .* received \(3, 0\)"),
    "linear": (lambda: nn.Linear(3, 0), "Linear: expected out_features as an integer from 1, received 0"),
    "fraction": (lambda: nn.Linear(1.5, 1.5), "Linear: expected in_features as an integer from 1, received 1.5"),
    "memory": (lambda: nn.Linear(10**9, 10**9), "Linear: expected an array that fits into the memory"),
    "memory of a window": (lambda: nn.Conv2d(3, 2, 10**9), "Conv2d: expected an array that fits into the memory"),
    "2^31": (lambda: nn.Linear(10**400, 1), "Linear: expected in_features of at most 2147483647, received 1"),
    "norm": (lambda: nn.BatchNorm2d(0), "BatchNorm2d: expected num_features as an integer from 1, received 0"),
    "norm memory": (lambda: nn.LayerNorm([2**31 - 1] * 50), "LayerNorm: expected an array that fits into"),
    "axes": (
        lambda: nn.BatchNorm2d(3)(Tensor(np.ones((4, 3)))),
        r"BatchNorm2d: expected 4 axes, received shape \(4, 3\)",
    ),
    "axes 1d": (lambda: nn.BatchNorm1d(3)(Tensor(np.ones((4, 3, 1, 1)))), "BatchNorm1d: expected 2 or 3 axes"),
    "p": (lambda: nn.Dropout(-0.1), r"Dropout: expected p in \[0, 1\], received -0.1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    action, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        action()
