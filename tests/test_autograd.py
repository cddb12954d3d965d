"""The tape: what it records, what it hands out, and what it refuses."""

import itertools
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicnn.functional as F
from minicnn import Tensor, is_grad_enabled, no_grad, optim
from minicnn.autograd import split_vjps


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype=dtype), requires_grad=True)


def test_gradients_accumulate_over_uses_and_over_passes():
    x = leaf(1.0, 2.0)
    for passes in (1, 2):
        (x * x + x * 3).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), passes * (2 * x.numpy() + 3))


def test_a_diamond_is_walked_once(kernel_calls):
    x = leaf(2.0)
    a = x.exp()
    for _ in range(20):  # 2^20 paths
        a = a + a
    kernel_calls.clear()
    a.backward()
    assert x.grad.item() == pytest.approx(2**20 * np.exp(2.0))
    assert kernel_calls.count("multiply") == 1  # exp's vjp


def test_the_order_is_topological_when_branches_differ_in_length():
    x = leaf(3.0)
    short, long = x * x, x
    for _ in range(5):
        long = long * 2
    (short * long + short).backward()  # 32 x^3 + x^2
    assert x.grad.item() == 96 * 9 + 6


@given(st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12))
def test_random_graphs_agree_with_torch(torch, steps):
    start = np.array([0.5, -1.25, 1.5])

    def build(leaves):
        nodes = list(leaves)
        for sign, i, j in steps:
            a, b = nodes[i % len(nodes)], nodes[j % len(nodes)]
            nodes.append((a + b if sign == "+" else a - b if sign == "-" else a * b) * 0.5)
        return nodes[-1].sum() + leaves[0].sum()

    mine = [Tensor(start * k, requires_grad=True) for k in (1, -2)]
    theirs = [torch.tensor(start * k, requires_grad=True) for k in (1, -2)]
    build(mine).backward()
    build(theirs).backward()
    for a, b in zip(mine, theirs, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)


BORROWING = {  # functions whose vjp may return the gradient it was given, or a view of it
    "itself": lambda x: x,
    "add a number": lambda x: x + 1,
    "add": lambda x: x + Tensor(np.ones(x.shape)),
    "reshape": lambda x: x.reshape(x.shape),
    "flatten": lambda x: x.flatten(),
    "permute": lambda x: x.permute(0),
    "twice": lambda x: x + x,
    "dropout off": lambda x: F.dropout(x, 0.5, training=False),
}


@pytest.mark.parametrize("function", BORROWING.values(), ids=BORROWING)
def test_a_borrowed_gradient_is_never_aliased_nor_mutated(function):
    x = leaf(1.0, 2.0, 3.0)
    cotangent = Tensor(np.array([1.0, 10.0, 100.0]))
    for _ in range(2):  # the second pass adds to the gradient of the first
        y = function(x)
        y.backward(cotangent)
        assert not np.shares_memory(x.grad.numpy(), cotangent.numpy())
        np.testing.assert_array_equal(cotangent.numpy(), [1.0, 10.0, 100.0])


def test_two_leaves_never_share_a_gradient():
    a, b = leaf(1.0), leaf(2.0)
    (a + b).backward(Tensor(np.array([1.0])))
    assert not np.shares_memory(a.grad.numpy(), b.grad.numpy())
    a.grad.data += 1
    assert b.grad.item() == 1


def test_a_gradient_on_its_way_is_not_added_to_in_place():
    """b's gradient is borrowed by c's; what d adds must not show in what c passes on."""
    a, c = leaf(1.0), leaf(5.0)
    b = a * 1
    (b + c + b * 10).backward()
    assert (a.grad.item(), c.grad.item()) == (11, 1)


def test_no_grad_leaves_no_tape():
    x = leaf(1.0)

    @no_grad()
    def recursive(depth):
        assert not is_grad_enabled()
        return recursive(depth - 1) if depth else x * 2

    with no_grad():
        assert not (x * 2).requires_grad
        with no_grad():
            pass
        assert not is_grad_enabled()
    assert not recursive(3).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert is_grad_enabled() and (x * 2).requires_grad


def test_detach_cuts_the_tape_and_shares_memory():
    x = leaf(3.0)
    y = x * x
    z = y.detach()
    (y * z).backward()  # z counts as the constant 9
    assert x.grad.item() == 54
    assert np.shares_memory(y.numpy(), z.numpy()) and z.is_leaf and not z.requires_grad


def test_retain_graph_allows_a_second_walk():
    x = leaf(2.0)
    y = (x**3).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 24
    with pytest.raises(RuntimeError, match=r"sum was freed by an earlier backward; pass retain_graph=True"):
        y.backward()


def test_a_freed_part_of_the_tape_is_refused_too():
    x = leaf(2.0)
    shared = x * x
    (shared * 1).backward()
    with pytest.raises(RuntimeError, match="tape of mul was freed"):
        (shared * 3).backward()


def test_joint_gradients_are_computed_once_a_pass():
    passes = []

    def both(gy):
        passes.append(gy)
        return gy * 2, gy * 3

    a, b = leaf(1.0), leaf(1.0)
    y = Tensor.from_op(a.data + b.data, (a, b), split_vjps(both, 2))
    y.backward(Tensor(np.array([1.0])), retain_graph=True)
    y.backward(Tensor(np.array([10.0])))
    assert (a.grad.item(), b.grad.item(), len(passes)) == (22, 33, 2)


# Edits in place. Each case: make (x, the tensor to edit) and a loss that saved what is edited.


def _leaf_used(x):
    return x, (x * x).sum()


def _output_used(x):
    y = x.exp()
    return y, y.sum()


def _own_output(x):
    y = F.relu(x)
    return y, y


def _view_of_leaf(x):
    loss = (x * x).sum()
    return x.reshape(3, 1), loss


def _detached(x):
    y = F.sigmoid(x)
    return y.detach(), y.sum()


def _leaf_through_a_view(x):
    return x, (x.reshape(3, 1) ** 2).sum()


def _other_operand(x):
    w = Tensor(np.arange(3.0))
    return w, (x * w).sum()


def _slice_of_operand(x):
    w = Tensor(np.arange(3.0))
    return w[1:], (x * w).sum()


def _filter_bank(x):
    w = Tensor(np.ones((1, 1, 2, 1)))
    return w, F.conv2d(x.reshape(1, 1, 3, 1), w).sum()


EDITED = [
    _leaf_used,
    _output_used,
    _own_output,
    _view_of_leaf,
    _detached,
    _leaf_through_a_view,
    _other_operand,
    _slice_of_operand,
    _filter_bank,
]
EDITS = {
    "copy_": lambda t: t.copy_(np.float64(7)),
    "item": lambda t: t.__setitem__(..., 7.0),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("case", EDITED)
def test_backward_after_an_edit_of_a_saved_array_is_an_error(case, edit):
    x = leaf(1.0, 2.0, 3.0)
    edited, loss = case(x)
    with no_grad():
        edit(edited)
    with pytest.raises(RuntimeError, match="was edited in place after it ran"):
        loss.backward(Tensor(np.ones(loss.shape)))


def test_an_optimizer_step_is_an_edit():
    x = leaf(1.0, 2.0)
    y, z = (x * x).sum(), (x * 3).exp().sum()
    y.backward()
    optim.SGD([x], lr=0.1).step()
    with pytest.raises(RuntimeError, match="edited in place"):
        z.backward()


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_labels_and_class_weights_may_be_edited_after_the_loss(integer):
    x = Tensor(np.array([[1.0, 2.0, 3.0]]), requires_grad=True)
    labels, weight = np.array([1], dtype=integer), Tensor(np.array([1.0, 2.0, 3.0]))
    loss = F.cross_entropy(x, labels, weight, reduction="sum")
    labels[0] = 0
    weight.copy_(np.float64(100))
    loss.backward()
    p = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    np.testing.assert_allclose(x.grad.numpy(), [2 * (p - [0, 1, 0])], rtol=1e-12)


def test_an_edit_needs_no_grad_on_a_recorded_tensor():
    x = leaf(1.0)
    for edit in EDITS.values():
        with pytest.raises(RuntimeError, match=r"edited under no_grad\(\) only"):
            edit(x)
    assert x.item() == 1


def test_an_edit_before_use_or_after_backward_is_fine():
    x = leaf(1.0, 2.0)
    for _ in range(2):
        with no_grad():
            x.copy_(np.float64(5))
        loss = (x * x).sum()
        loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [20, 20])


# Only what is asked for


def images(*shape, requires_grad):
    return Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=requires_grad)


UNASKED = {
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b),
        ((1, 2, 5, 4), (3, 2, 2, 3), (3,)),
        ("conv2d_grad_input", "conv2d_grad_weight", None),
    ),
    "linear": (lambda x, w, b: F.linear(x, w, b), ((4, 3), (2, 3), (2,)), (None, None, None)),
    "matmul": (lambda a, b: a @ b, ((4, 3), (3, 2)), (None, None)),
    "multiply": (lambda a, b: a * b, ((4, 3), (3,)), (None, None)),
    "divide": (lambda a, b: a / b, ((4, 3), (3,)), (None, None)),
}


@pytest.mark.parametrize("name", UNASKED)
def test_gradients_nobody_asked_for_are_not_computed(name, kernel_calls):
    function, shapes, kernels = UNASKED[name]
    cost = {}
    for wanted in itertools.product([False, True], repeat=len(shapes)):
        tensors = [images(*shape, requires_grad=w) for shape, w in zip(shapes, wanted, strict=True)]
        y = function(*tensors)
        assert y.requires_grad == any(wanted)
        if not any(wanted):
            continue
        kernel_calls.clear()
        y.backward(Tensor(np.ones(y.shape)))
        assert [t.grad is not None for t in tensors] == list(wanted)
        cost[wanted] = len(kernel_calls)
        for kernel, w in zip(kernels, wanted, strict=True):
            assert kernel is None or (kernel in kernel_calls) == w
    single = [cost[tuple(i == j for j in range(len(shapes)))] for i in range(len(shapes))]
    assert cost[(True,) * len(shapes)] == sum(single)


def test_only_what_backward_needs_is_kept():
    x = leaf(-1.0, 2.0)
    h = x * 2
    saved = weakref.ref(h._data)
    y = F.relu(h)  # needs its output alone
    del h
    assert saved() is None
    e = (y * 1).exp()
    saved = weakref.ref(e._data)
    loss = e.sum()
    del e
    assert saved() is not None
    loss.backward()
    assert saved() is None
    np.testing.assert_allclose(x.grad.numpy(), [0, 2 * np.exp(4)])


def test_a_deep_graph_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y * 1.0001
    y.sum().backward()
    assert x.grad.item() == pytest.approx(1.0001**10_000)
    del y


# What backward refuses


def test_a_vjp_of_another_shape_is_an_error():
    def halve(x):
        return Tensor.from_op(x.data / 2, (x,), (lambda gy: gy[:1],))

    with pytest.raises(RuntimeError, match=r"expected a gradient of shape \(2,\), received \(1,\)"):
        halve(leaf(1.0, 2.0)).sum().backward()


@pytest.mark.parametrize(
    "gradient, error, message",
    [
        (None, ValueError, r"expected a gradient for a tensor of shape \(2,\), received none"),
        (
            Tensor(np.ones(3)),
            ValueError,
            r"expected shape \(2,\), received \(3,\)",
        ),
        (Tensor(np.ones(2, np.float32)), TypeError, "expected float64, received float32"),
        (np.ones(2), TypeError, "expected the gradient as a Tensor, received ndarray"),
    ],
)
def test_backward_refuses_a_gradient_that_does_not_fit(gradient, error, message):
    with pytest.raises(error, match=f"backward: .*{message}"):
        (leaf(1.0, 2.0) * 2).backward(gradient)


def test_backward_without_a_tape_is_an_error():
    with pytest.raises(RuntimeError, match="expected a tensor with a tape, received one that requires no gradient"):
        Tensor([1.0]).backward()


def test_a_leaf_is_its_own_gradient():
    x = leaf(4.0)
    x.backward()
    assert x.grad.item() == 1


def test_only_a_leaf_can_change_what_it_requires():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="expected a leaf"):
        (x * 2).requires_grad_(False)
    assert not (x.requires_grad_(False) * 2).requires_grad
