"""Networks and functions, compiled, do what they do eagerly on the kernels of the specification."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend
from shared.runs import NETWORKS, Run, agree, batches, eager, nodes_of, same


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    build, shape = NETWORKS[name]
    data = batches(4, (11, *shape))
    agree(Run(build).train(data), eager(data, build), 1e-3 if name in ("vgg", "resnet") else 2e-4)


@pytest.mark.parametrize("name", ["stride", "overlapping pool", "dropout", "batch norm"])
def test_float64_is_plain_calls(name):
    build, shape = NETWORKS[name]
    data = batches(3, (9, *shape), dtype="float64")
    run = Run(build, dtype="float64")
    agree(run.train(data), eager(data, build, dtype="float64"), 1e-12)
    assert all(n.kind == "call" for n in nodes_of(next(iter(run.step.plans.values()))))


def test_masks_differ_from_step_to_step_and_follow_the_seed():
    x = np.ones((3, 40), np.float32)
    compiled = minicnn.compile(lambda t: F.dropout(t * 1.0, 0.5, True))
    minicnn.manual_seed(7)
    first = [compiled(x).numpy() for _ in range(3)]
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])
    minicnn.manual_seed(7)
    same([F.dropout(Tensor(x), 0.5, True).numpy() for _ in range(3)], first)


# Functions

FUNCTIONS = {
    "astype": lambda x: (x.astype("float64") * 2.0).astype("float32"),
    "index": lambda x: x[1:, :, ::2] + x[0, :, :2] * x[(x.argmax(0).max(0).values * 0)[0, 0], 1, 0],
    "permute": lambda x: x.permute(1, 0, 3, 2).transpose(0, 1),
    "cat": lambda x: minicnn.cat([x, x * 2.0], 1) + minicnn.stack([x, x], 1).sum(1).mean(),
    "reductions": lambda x: x.amax(1) + x.sum((2, 3), keepdim=True).mean() + x.argmax(3).astype("float32").mean(),
    "extremes over axes": lambda x: x.max(1)[0] + x.amin((0, 2)).max(),
    "extremes": lambda x: x.max(1, keepdim=True)[1].astype("float32") * x.min(2, keepdim=True).values,
    "comparisons": lambda x: (x > 0.5).astype("float32") - (x[:1] <= x).astype("float32").mean(),
    "arithmetic": lambda x: (1.0 - x / 2.0) ** 2 - (-x).exp() / (x * x + 2.0).sqrt().log(),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "activations": lambda x: F.gelu(F.sigmoid(F.tanh(F.leaky_relu(x)))) + F.softmax(x, 1) + F.log_softmax(x, 3),
    "layer norm": lambda x: F.layer_norm(x, (4, 5)),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(F.relu(x), (2, 3)),
    "itself": lambda x: x,
    "detached": lambda x: x.detach().flatten(1),
    "mse": lambda x: F.mse_loss(x, x.permute(1, 0, 2, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_follow_their_input(name):
    function, compiled = FUNCTIONS[name], minicnn.compile(FUNCTIONS[name])
    for x, _ in batches(3, (3, 3, 4, 5)):
        with backend.use("reference"):
            expected = function(Tensor(x)).numpy()
        agree([compiled(x).numpy()], [expected], 1e-5)
