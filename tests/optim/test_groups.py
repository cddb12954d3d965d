"""Steps of each parameter, options of each group, and their way through a saved state, as in PyTorch."""

import json

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn, optim
from minicnn.autograd import no_grad

KINDS = {
    "SGD": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    "Nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": ("Adam", {"lr": 0.1, "weight_decay": 0.1}),
    "AdamW": ("AdamW", {"lr": 0.1}),
}
RNG = np.random.default_rng(0)
WEIGHTS = [RNG.standard_normal((4, 3)).astype(np.float32) for _ in range(2)]
X = RNG.standard_normal((9, 3)).astype(np.float32)


def made(kind, package, make, **options):
    """Two weights, each in a group of its own, and their optimizer."""
    name, defaults = KINDS[kind]
    parameters = [make(w) for w in WEIGHTS]
    groups = [{"params": [p]} for p in parameters]
    return parameters, getattr(package, name)(groups, **defaults | options)


def ours(kind, **options):
    return made(kind, optim, lambda w: Tensor(w.copy(), requires_grad=True), **options)


def theirs(torch, kind):
    return made(kind, torch.optim, lambda w: torch.tensor(w, requires_grad=True))


def steps(parameters, optimizer, compiled=False):
    """A function that takes a step on the squares of x w^T for those weights that ``who`` names, "0", "1" or "01"."""

    def of(who):
        def step(x):
            loss = sum(((x @ parameters[int(i)].T) ** 2).mean() for i in who)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return minicnn.compile(step) if compiled else step

    known = {who: of(who) for who in ("0", "1", "01")}
    return lambda who, x: known[who](x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_parameter_counts_its_own_steps(kind, compiled, torch, close):
    """The second has its first gradient at step 6, and no gradient again later."""
    (parameters, optimizer), (twins, twin) = ours(kind), theirs(torch, kind)
    step, other = steps(parameters, optimizer, compiled), steps(twins, twin)
    for who in ["0"] * 5 + ["01", "1", "0", "0", "01"]:
        step(who, Tensor(X)), other(who, torch.tensor(X))
        for mine, expected in zip(parameters, twins, strict=True):
            close(mine.numpy(), expected.detach().numpy(), 1e-4)
    assert optimizer.steps == 10


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_the_first_gradient_moves_by_the_rate_however_late(kind):
    parameters, optimizer = ours(kind, weight_decay=0.0)
    for _ in range(1000):
        parameters[0].grad = Tensor(np.ones((4, 3), np.float32))
        optimizer.step()
    parameters[1].grad = Tensor(np.full((4, 3), 7.0, np.float32))
    optimizer.step()
    np.testing.assert_allclose(parameters[1].numpy(), WEIGHTS[1] - 0.1, rtol=1e-4, atol=1e-6)


CHANGES = {  # set on the second group in the middle
    "SGD": {"lr": 0.03, "momentum": 0.5, "dampening": 0.2, "weight_decay": 0.3},
    "Nesterov": {"lr": 0.03, "momentum": 0.5, "weight_decay": 0.2},
    "Adam": {"lr": 0.03, "betas": (0.6, 0.8), "eps": 1e-2, "weight_decay": 0.3},
    "AdamW": {"lr": 0.03, "betas": (0.6, 0.8), "eps": 1e-2, "weight_decay": 0.3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
def test_options_that_are_set_later_hold(kind, compiled, resumed, torch, close):
    """In the same plan, and in another optimizer that loads the state, which went through JSON."""
    (parameters, optimizer), (twins, twin) = ours(kind), theirs(torch, kind)
    step, other = steps(parameters, optimizer, compiled), steps(twins, twin)
    for i in range(6):
        if i == 3:
            optimizer.param_groups[1].update(CHANGES[kind])
            twin.param_groups[1].update(CHANGES[kind])
        if i == 4 and resumed:
            state = optimizer.state_dict()
            numbers = json.loads(json.dumps({k: v for k, v in state.items() if not hasattr(v, "shape")}))
            arrays = {k: v.copy() for k, v in state.items() if hasattr(v, "shape")}
            kept = [p.numpy().copy() for p in parameters]
            parameters, optimizer = ours(kind)
            with no_grad():
                for p, array in zip(parameters, kept, strict=True):
                    p.copy_(array)
            optimizer.load_state_dict(numbers | arrays)
            step = steps(parameters, optimizer, compiled)
        step("01", Tensor(X)), other("01", torch.tensor(X))
        for mine, expected in zip(parameters, twins, strict=True):
            close(mine.numpy(), expected.detach().numpy(), 1e-4)
    group = optimizer.param_groups[1]
    assert {name: group[name] for name in CHANGES[kind]} == CHANGES[kind]


def test_a_momentum_that_is_set_later(torch, close):
    """Eagerly as in PyTorch; a plan that was recorded without one says so."""
    parameters = [Tensor(WEIGHTS[0].copy(), requires_grad=True)]
    twins = [torch.tensor(WEIGHTS[0], requires_grad=True)]
    optimizer, twin = optim.SGD(parameters, 0.1, dampening=0.5), torch.optim.SGD(twins, 0.1, dampening=0.5)
    eager, compiled, other = steps(parameters, optimizer), steps(parameters, optimizer, True), steps(twins, twin)
    compiled("0", Tensor(X)), other("0", torch.tensor(X))
    optimizer.param_groups[0]["momentum"] = twin.param_groups[0]["momentum"] = 0.9
    with pytest.raises(RuntimeError, match="SGD: a plan has its form of momentum .* compile the function anew"):
        compiled("0", Tensor(X))
    for _ in range(3):
        eager("0", Tensor(X)), other("0", torch.tensor(X))
        close(parameters[0].numpy(), twins[0].detach().numpy(), 1e-4)
    fresh = optim.SGD([Tensor(WEIGHTS[0], requires_grad=True)], 0.1)
    fresh.load_state_dict(optimizer.state_dict())
    np.testing.assert_array_equal(fresh.state_dict()["velocity.0"], optimizer.state_dict()["velocity.0"])


def test_the_rate_that_is_read_is_the_one_that_is_taken():
    (p, *_), optimizer = ours("SGD")
    optimizer.param_groups[0]["lr"] = 0.5
    assert optimizer.lr == 0.5
    optimizer.lr = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    own = optim.SGD([{"params": [p], "lr": 0.3}], 0.1)
    assert own.lr == 0.1
    other = optim.SGD([p], 0.1)
    other.load_state_dict(own.state_dict())  # with the ratio that the group was given
    other.lr = 1.0
    assert other.param_groups[0]["lr"] == pytest.approx(3)


def test_the_state_of_other_groups_is_refused():
    parameters, optimizer = ours("Adam")
    one = optim.Adam(parameters, 0.1)
    for mine, state, sizes in ((optimizer, one, r"\[1, 1\] .* \[2\]"), (one, optimizer, r"\[2\] .* \[1, 1\]")):
        with pytest.raises(ValueError, match=f"load_state_dict: Adam: expected groups of {sizes}; make the optimizer"):
            mine.load_state_dict(state.state_dict())
    with pytest.raises(ValueError, match="SGD differs in group.0.betas"):
        optim.SGD(parameters).load_state_dict(one.state_dict())


TAMPERED = {
    "lr": ({"group.0.lr": -1.0}, ValueError), "text": ({"group.0.lr": "1"}, TypeError),
    "none": ({"lr": None}, TypeError),
    "nan": ({"group.1.weight_decay": float("nan")}, ValueError), "huge": ({"lr": 10**400}, ValueError),
    "beta": ({"group.0.betas": [0.9, 1.5]}, ValueError), "betas": ({"group.0.betas": [0.9]}, ValueError),
    "number": ({"group.0.betas": 0.9}, ValueError), "counts": ({"counts": np.array([1, -1])}, ValueError),
    "few": ({"counts": np.array([1])}, ValueError), "fractions": ({"counts": np.array([1.0, 2.0])}, ValueError),
    "steps": ({"steps": -1}, ValueError), "size": ({"group.0.size": 2}, ValueError), "list": ({"lr": [1]}, TypeError),
    "ratio": ({"group.0.ratio": None}, TypeError), "shape": ({"mean.0": np.ones(2)}, ValueError),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_state_changes_nothing(name):
    _, optimizer = ours("Adam")
    before = {k: np.array(v) for k, v in optimizer.state_dict().items()}
    change, error = TAMPERED[name]
    good = {k: v + 1 if hasattr(v, "shape") else v for k, v in optimizer.state_dict().items()} | {"steps": 5, "lr": 0.7}
    with pytest.raises(error):
        optimizer.load_state_dict(good | change)
    for key, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, before[key], key)
    optimizer.load_state_dict(good)
    assert optimizer.steps == 5


GIVEN = {  # whether PyTorch takes it
    "generator": lambda p, f: (w for w in p),
    "tuple": lambda p, f: tuple(p),
    "single tensor": lambda p, f: p[0],
    "single tensor without gradient": lambda p, f: p[0].detach(),
    "single tensor in a group": lambda p, f: [{"params": p[0]}],
    "generator in a group": lambda p, f: [{"params": (w for w in p)}],
    "set in a group": lambda p, f: [{"params": set(p)}],
    "a group itself": lambda p, f: {"params": p},
    "tensor among groups": lambda p, f: [{"params": [p[0]]}, p[1]],
    "not a leaf": lambda p, f: [p[0] * 2],
    "number": lambda p, f: [1.0],
    "text": lambda p, f: "weights",
    "none": lambda p, f: None,
    "none among them": lambda p, f: [p[0], None],
    "list of lists": lambda p, f: [p],
    "the same in two groups": lambda p, f: [{"params": p}, {"params": [p[0]]}],
    "nothing": lambda p, f: [],
    "module": lambda p, f: f.Linear(2, 2),
    "modules": lambda p, f: f.Sequential(f.Linear(2, 2)),
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("kind", KINDS)
def test_what_may_be_given_agrees_with_torch(given, kind, torch):
    name, options = KINDS[kind]
    outcomes = []
    for package, layers, tensor in ((optim, nn, Tensor), (torch.optim, torch.nn, torch.tensor)):
        parameters = [tensor(w, requires_grad=True) for w in WEIGHTS]
        try:
            made = getattr(package, name)(GIVEN[given](parameters, layers), **options)
            outcomes.append([len(group["params"]) for group in made.param_groups])
        except (TypeError, ValueError) as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


def test_a_set_has_no_order():
    with pytest.raises(TypeError, match="SGD: expected a list of tensors or groups, received set"):
        optim.SGD({Tensor(w, requires_grad=True) for w in WEIGHTS})


def test_a_replay_of_a_step_counts_as_an_edit():
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), 0.1)

    def step(x):
        loss = model(x).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    compiled, x = minicnn.compile(step), Tensor(X)
    compiled(x)
    loss = F.relu(model(Tensor(X, requires_grad=True))).sum()
    compiled(x)
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()
