"""Optimizers against those of PyTorch over many steps, and their state."""

import itertools

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor, optim

STEPS = 20
SGD = [
    {"lr": 0.1, "momentum": momentum, "dampening": dampening, "weight_decay": decay, "nesterov": nesterov}
    for momentum, dampening, decay, nesterov in itertools.product([0, 0.9], [0, 0.3], [0, 0.01], [False, True])
    if not nesterov or (momentum and not dampening)
]
ADAM = [
    {"lr": 0.05, "betas": betas, "eps": eps, "weight_decay": decay}
    for betas, eps, decay in itertools.product([(0.9, 0.999), (0.5, 0.7), (0.0, 0.0)], [1e-8, 1e-2], [0, 0.1])
]
CASES = [("SGD", o) for o in SGD] + [(name, o) for name in ("Adam", "AdamW") for o in ADAM]
SHAPES = [(3, 2, 2, 1), (5,), ()]


def start(dtype="float64"):
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal(shape), dtype=dtype) for shape in SHAPES]


def gradients(dtype="float64"):
    rng = np.random.default_rng(1)
    return [[np.asarray(rng.standard_normal(shape), dtype=dtype) for shape in SHAPES] for _ in range(STEPS)]


def take_steps(optimizer, parameters, arrays):
    for step in arrays:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = Tensor(gradient)
        before = [g.copy() for g in step]
        optimizer.step()
        for gradient, copy in zip(step, before, strict=True):
            np.testing.assert_array_equal(gradient, copy, "a gradient was modified")


@pytest.mark.parametrize("name, options", CASES)
def test_steps_agree_with_torch(name, options, dtype, backend_name, torch, close):
    ours = [Tensor(a, requires_grad=True) for a in start(dtype)]
    theirs = [torch.tensor(a, requires_grad=True) for a in start(dtype)]
    optimizer, twin = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for step, arrays in enumerate(gradients(dtype)):
        if step == STEPS // 2:
            optimizer.lr = twin.param_groups[0]["lr"] = 0.02
        take_steps(optimizer, ours, [arrays])
        for parameter, gradient in zip(theirs, arrays, strict=True):
            parameter.grad = torch.tensor(gradient)
        twin.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.dtype == dtype
            close(mine.numpy(), other.detach().numpy(), 1e-12 if dtype == "float64" else 2e-5)


GROUPS = [  # options of all, and of each group
    ("SGD", {"lr": 0.1, "momentum": 0.9}, [{"weight_decay": 0.1}, {"momentum": 0.0, "lr": 0.02}]),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.5}, [{"nesterov": True}, {"weight_decay": 0.0}]),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1}, [{"betas": (0.5, 0.7)}, {"weight_decay": 0.0, "eps": 1e-2}]),
    ("AdamW", {"lr": 0.05}, [{"weight_decay": 0.3, "lr": 0.2}, {"weight_decay": 0.0}]),
]


@pytest.mark.parametrize("name, options, groups", GROUPS)
def test_groups_agree_with_torch(name, options, groups, dtype, backend_name, torch, close):
    ours = [Tensor(a, requires_grad=True) for a in start(dtype)]
    theirs = [torch.tensor(a, requires_grad=True) for a in start(dtype)]
    made = []
    for package, parameters in ((optim, ours), (torch.optim, theirs)):
        parts = ([parameters[0]], iter(parameters[1:]))
        given = [{"params": part, **group} for part, group in zip(parts, groups, strict=True)]
        made.append(getattr(package, name)(given, **options))
    optimizer, twin = made
    for step, arrays in enumerate(gradients(dtype)):
        if step == STEPS // 2:  # as a schedule does: all rates by one factor
            optimizer.lr = options["lr"] * 0.3
            for group in twin.param_groups:
                group["lr"] *= 0.3
        take_steps(optimizer, ours, [arrays])
        for parameter, gradient in zip(theirs, arrays, strict=True):
            parameter.grad = torch.tensor(gradient)
        twin.step()
    assert optimizer.lr == options["lr"] * 0.3
    for mine, other in zip(ours, theirs, strict=True):
        close(mine.numpy(), other.detach().numpy(), 1e-12 if dtype == "float64" else 2e-5)
    state = optimizer.state_dict()
    assert not any(isinstance(value, dict | list) for value in state.values())
    optimizer.lr = 5.0
    optimizer.load_state_dict(state)
    optimizer.lr = 1.0
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [group.get("lr", options["lr"]) / options["lr"] for group in groups]
    )


def test_sgd_by_hand(backend_name):
    """w = 1, g = 2: v = 2, w = 0.8; then v = 0.9 * 2 + 2 = 3.8, w = 0.42."""
    w = Tensor(np.array([1.0]), requires_grad=True)
    take_steps(optim.SGD([w], lr=0.1, momentum=0.9), [w], [[np.array([2.0])]] * 2)
    assert w.item() == pytest.approx(0.42)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_first_step_of_adam_by_hand(name, backend_name):
    """Corrected for bias, the first step is lr g / (|g| + eps), whatever the betas."""
    w = Tensor(np.array([1.0, 1.0]), requires_grad=True)
    take_steps(getattr(optim, name)([w], lr=0.1, eps=1.0, weight_decay=0.0), [w], [[np.array([3.0, -1.0])]])
    np.testing.assert_allclose(w.numpy(), [1 - 0.1 * 3 / 4, 1 + 0.1 / 2])


@pytest.mark.parametrize("name, options", [("SGD", SGD[-1]), ("SGD", SGD[0]), ("Adam", ADAM[-1]), ("AdamW", ADAM[1])])
def test_state_round_trip_in_the_middle_of_a_run(name, options, dtype, backend_name):
    make = getattr(optim, name)
    straight = [Tensor(a, requires_grad=True) for a in start(dtype)]
    steps = gradients(dtype)
    optimizer = make(straight, **options)
    take_steps(optimizer, straight, steps[:7])
    optimizer.lr = 0.03
    state = {key: value.copy() if hasattr(value, "shape") else value for key, value in optimizer.state_dict().items()}
    resumed = [Tensor(t.numpy().copy(), requires_grad=True) for t in straight]
    take_steps(optimizer, straight, steps[7:])
    other = make(resumed, **options | {"lr": 1.0})
    other.load_state_dict(state)
    take_steps(other, resumed, steps[7:])
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_state_is_a_flat_dictionary():
    w = Tensor(np.ones(2), requires_grad=True)
    state = optim.Adam([w], lr=0.5).state_dict()
    group = {"group.0.lr": 0.5, "group.0.betas": (0.9, 0.999), "group.0.eps": 1e-8, "group.0.weight_decay": 0.0}
    assert {"steps": 0, "lr": 0.5, "group.0.size": 1, "group.0.ratio": 1.0, **group}.items() <= state.items()
    assert set(state) - set(group) == {"steps", "lr", "group.0.size", "group.0.ratio", "counts", "mean.0", "square.0"}
    assert state["mean.0"].shape == (2,) and state["counts"].tolist() == [0]


def test_a_state_that_differs_is_refused_and_nothing_is_copied():
    w = Tensor(np.ones(2), requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="load_state_dict: SGD differs in counts, group.0.dampening, group.0.lr"):
        optimizer.load_state_dict({"steps": 5, "lr": 9.0, "velocity.0": np.ones(2)})  # of an older minicnn
    with pytest.raises(ValueError, match="load_state_dict: SGD differs in mean.0, velocity.0$"):
        optimizer.load_state_dict({k: v for k, v in state.items() if k != "velocity.0"} | {"mean.0": np.ones(2)})
    with pytest.raises(ValueError, match=r"velocity.0: expected \(2,\), received \(3,\)"):
        optimizer.load_state_dict(state | {"steps": 5, "velocity.0": np.ones(3)})
    assert (optimizer.steps, optimizer.lr) == (0, 0.1)


def test_parameters_without_gradient_stay():
    a, b = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    optimizer = optim.SGD([a, b], lr=0.5, momentum=0.9, weight_decay=0.1)
    a.grad = Tensor(np.ones(2))
    optimizer.step()
    assert b.numpy().tolist() == [1, 1] and a.numpy().tolist() != [1, 1]
    optimizer.zero_grad()
    assert a.grad is None


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_the_layout_of_a_parameter_does_not_matter(name, dtype, backend_name):
    values = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
    gradient = np.random.default_rng(1).standard_normal((4, 6)).astype(dtype)
    options = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9} if name == "SGD" else {})
    results = []
    for layout in (np.array, np.asfortranarray, lambda a: a.repeat(2, 1)[:, ::2], lambda a: a[::-1].copy()[::-1]):
        w = Tensor(layout(values), requires_grad=True)
        take_steps(getattr(optim, name)([w], **options), [w], [[layout(gradient)]] * 3)
        results.append(w.numpy())
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6)


def test_a_minimum_is_found(backend_name):
    rng = np.random.default_rng(0)
    x, truth = rng.standard_normal((64, 3)), np.array([[1.0, -2.0, 0.5]])
    for make in (
        lambda p: optim.SGD(p, 0.1, momentum=0.9),
        lambda p: optim.Adam(p, 0.1),
        lambda p: optim.AdamW(p, 0.1, weight_decay=0),
    ):
        w = Tensor(np.zeros((1, 3)), requires_grad=True)
        optimizer = make([w])
        for _ in range(300):
            optimizer.zero_grad()
            F.mse_loss(F.linear(Tensor(x), w), Tensor(x @ truth.T)).backward()
            optimizer.step()
        np.testing.assert_allclose(w.numpy(), truth, atol=1e-4)


W = Tensor(np.ones(2), requires_grad=True)
ERRORS = {
    "none": (lambda: optim.SGD([]), ValueError, "SGD: expected parameters, received none"),
    "twice": (lambda: optim.SGD([W, W]), ValueError, "SGD: expected each parameter once, received"),
    "not a leaf": (lambda: optim.Adam([W * 2]), ValueError, "Adam: expected leaf tensors, received one that an op"),
    "integers": (lambda: optim.Adam([Tensor([1])]), TypeError, "Adam: expected float tensors .* of int64"),
    "lr": (lambda: optim.SGD([W], lr=-1), ValueError, r"SGD: expected lr in \[0, inf\), received -1"),
    "lr nan": (lambda: optim.AdamW([W], lr=float("nan")), ValueError, "AdamW: expected lr .* received nan"),
    "momentum": (lambda: optim.SGD([W], momentum=-0.1), ValueError, "expected momentum .* received -0.1"),
    "decay": (lambda: optim.SGD([W], weight_decay=-1), ValueError, "expected weight_decay .* received -1"),
    "nesterov": (
        lambda: optim.SGD([W], nesterov=True),
        ValueError,
        "a momentum and no dampening with nesterov, received momentum 0.0",
    ),
    "beta": (lambda: optim.Adam([W], betas=(0.9, 1.0)), ValueError, r"betas\[1\] in \[0, 1.0\), received 1.0"),
    "group without": (
        lambda: optim.SGD([{"lr": 1.0}]),
        ValueError,
        "SGD: expected groups of params and of lr, momentum",
    ),
    "unknown": (lambda: optim.Adam([{"params": [W], "momentum": 1}]), ValueError, "received one of params, momentum"),
    "in a group": (lambda: optim.SGD([{"params": [W], "weight_decay": -1}]), ValueError, "weight_decay .* received -1"),
    "in two groups": (lambda: optim.SGD([{"params": [W]}] * 2), ValueError, "SGD: expected each parameter once"),
    "eps": (lambda: optim.Adam([W], eps=-1), ValueError, "expected eps .* received -1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    action, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        action()
