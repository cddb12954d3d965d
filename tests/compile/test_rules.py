"""The rules: what becomes of a recorded call."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn
from minicnn.models import LeNet
from shared.runs import Run, agree, batches, chain, conv, fc, kinds, nodes_of, pool


def test_lenet_step_is_fused():
    run = Run(LeNet)
    run.train(batches(1, (9, 3, 32, 32)))
    found = kinds(run.step)
    assert found["products"] == 9  # 5 forward, 4 gradients of inputs
    assert found["max_pool_and_taps"] == found["max_pool_grad"] == found["weight_gradient"] == 2
    assert found["relu_grad"] == 2 and found["channel_sums"] == 5 and found["matrix"] == 3
    assert found["cross_entropy"] == found["cross_entropy_grad"] == found["sgd_steps"] == 1
    assert "relu" not in found and "conv2d()" not in found and "linear()" not in found
    (plan,) = run.step.plans.values()
    assert found["spread_rows"] == found["gather_rows"] == found["gather_rows_grad"] == 2
    floors = [n.operands["floor"] for n in nodes_of(plan) if n.kind in ("products", "gather_rows", "max_pool_and_taps")]
    assert floors.count(0.0) == 4 + 2  # after each hidden layer, in each pool
    assert str(plan).startswith("plan: 9 images in 2 blocks of 8") and "digraph" in plan.to_dot()


@pytest.mark.parametrize(
    "network, present, absent",
    [
        (chain(conv(3, 4, 3), nn.ReLU, nn.Flatten, fc(24, 10)), {"matrix"}, {"relu", "reshape", "copy"}),
        (
            chain(conv(3, 4, 3), nn.ReLU, conv(4, 4, 3, padding=1), pool(1), nn.Flatten, fc(24, 10)),
            {"max_pool_and_taps"},
            {"relu", "copy"},
        ),
        (chain(conv(3, 4, 3), pool(2), nn.ReLU, nn.Flatten, fc(4, 10)), {"max_pool_and_taps", "relu_grad"}, {"relu"}),
        (
            chain(conv(3, 4, 1), conv(4, 4, 3, 2, padding=1), nn.Flatten, fc(24, 10)),
            {"products"},
            {"conv2d_grad_input()"},
        ),
        (
            chain(conv(3, 3, 3, groups=3), nn.Flatten, fc(18, 10)),
            {"conv2d()", "conv2d_grad_weight()"},
            {"weight_gradient"},
        ),
        (chain(conv(3, 4, 3), nn.ELU, nn.Flatten, fc(24, 10)), {"elu", "elu_grad"}, {"elu()", "elu_grad()"}),
        (
            chain(conv(3, 4, 3), nn.GELU, nn.Flatten, fc(24, 10)),
            {"gelu_and_slope", "multiply"},
            {"gelu()", "gelu_grad()", "gelu"},
        ),
        (
            chain(conv(3, 4, 3), lambda: nn.GELU("tanh"), nn.Flatten, fc(24, 10)),
            {"gelu()", "gelu_grad()", "deinterleave"},
            {"conv2d()"},
        ),
    ],
)
def test_rules(network, present, absent):
    run = Run(network)
    run.train(batches(1, (9, 3, 5, 4)))
    found = kinds(run.step)
    assert present <= set(found) and not absent & set(found), found


def _leaf_of_blocks(x):
    """A leaf that a convolution makes: what is behind it is in blocks, and it has a gradient."""
    weight = Tensor(np.random.default_rng(5).standard_normal((4, 4, 1, 1)).astype(np.float32))
    return Tensor(F.conv2d(x, weight).data, requires_grad=True)


def _beside_the_relu(x, g):
    leaf = _leaf_of_blocks(x)
    p = F.max_pool2d(leaf, 2)
    r = F.relu(p)
    p.backward(g)
    return r, leaf.grad


def _through_the_relu_and_beside_it(x, g):
    leaf = _leaf_of_blocks(x)
    p = F.max_pool2d(leaf, 2)
    F.relu(p).backward(g, retain_graph=True)
    p.backward(g)
    return p, leaf.grad


def _twice(x, g):
    leaf = _leaf_of_blocks(x)
    p = F.max_pool2d(F.relu(leaf), 2)
    p.backward(g, retain_graph=True)
    p.backward(g)
    return p, leaf.grad


def _edited(x, g):
    leaf = _leaf_of_blocks(x)
    y = F.relu(F.max_pool2d(leaf, 2))
    y.backward(g)
    part = leaf.grad[:, :2]
    part *= 3.0
    return y, leaf.grad


@pytest.mark.parametrize("count", [3, 8, 19])
@pytest.mark.parametrize("step", [_beside_the_relu, _through_the_relu_and_beside_it, _twice, _edited])
def test_gradients_of_a_pool_beside_a_relu(step, count):
    rng = np.random.default_rng(count)
    x, g = (rng.standard_normal((count, 4, *size)).astype(np.float32) for size in ((6, 7), (3, 3)))
    compiled = minicnn.compile(step)
    for found, expected in zip(compiled(x, g), step(Tensor(x), Tensor(g)), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [F.gelu, lambda x: F.max_pool2d(x, 2)])
def test_what_a_gradient_needs_is_kept_where_it_can_be_read(layer):
    """Of few images lanes may be channels, for which gradients have no rules."""

    def step(x):
        leaf = _leaf_of_blocks(x)
        y = layer(leaf)
        y.sum().backward()
        return y, leaf.grad

    x = np.random.default_rng(1).standard_normal((3, 4, 6, 6)).astype(np.float32)
    compiled = minicnn.compile(step)
    for found, expected in zip(compiled(x), step(Tensor(x)), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)
    kept = {"gelu_and_slope", "max_pool_and_taps"} & set(kinds(compiled))
    (plan,) = compiled.plans.values()
    assert not kept if plan.code.graph.layout.is_shared else kept


def test_reshape_of_a_block_with_a_halo_is_a_copy():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, padding=1))
    linear = nn.Linear(24, 10)

    def both(x):
        h = model[0](x)
        return linear(F.flatten(h, 1)), model[1](h)

    compiled = minicnn.compile(both)
    ((x, _),) = batches(1, (9, 3, 5, 4))
    agree([t.numpy() for t in compiled(x)], [t.numpy() for t in both(Tensor(x))])
    assert kinds(compiled)["copy"] == 1


def test_reshape_between_two_halos():
    first, second, third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(2, 5, 3, padding=(2, 1))

    def both(x):
        h = first(x)
        return second(h), third(h.reshape(x.shape[0], 2, 3, 4))

    compiled = minicnn.compile(both)
    ((x, _),) = batches(1, (9, 3, 5, 4))
    agree([t.numpy() for t in compiled(x)], [t.numpy() for t in both(Tensor(x))])
    assert kinds(compiled)["copy"] == 2  # out of one halo, into the other


def test_a_relu_whose_input_is_seen_elsewhere_is_not_fused():
    layer = nn.Conv2d(3, 4, 3)
    compiled = minicnn.compile(lambda x: (F.relu(layer(x)), layer(x), F.relu(h := layer(x)) + h))
    ((x, _),) = batches(1, (9, 3, 5, 4))
    y = layer(Tensor(x)).numpy()
    agree([t.numpy() for t in compiled(x)], [np.maximum(y, 0), y, np.maximum(y, 0) + y])
    assert kinds(compiled)["relu"] == 1
