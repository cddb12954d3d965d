"""Gradients that go into a compiled function and come out of it."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn, no_grad, optim


def pairs(rounds=6):
    rng = np.random.default_rng(0)
    return [
        (Tensor(rng.standard_normal((9, 12)).astype(np.float32)), Tensor(rng.integers(0, 10, 9))) for _ in range(rounds)
    ]


def network():
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))


def reset(model):
    for p in model.parameters():
        p.grad = None


def by_hand(model):
    with no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad


def normed(model):
    norm = sum(((p.grad * p.grad).sum() for p in model.parameters()), Tensor(0.0)).sqrt()
    for p in model.parameters():
        p.grad = p.grad / norm


def climb(model, x, y):
    """Sharpness-aware minimisation: the gradient a step up the hill."""
    with no_grad():
        offsets = [p.grad * 0.05 for p in model.parameters()]
        for p, offset in zip(model.parameters(), offsets, strict=True):
            p += offset
    reset(model)
    F.cross_entropy(model(x), y).backward()
    with no_grad():
        for p, offset in zip(model.parameters(), offsets, strict=True):
            p -= offset


# Each line: what is done before the compiled function, in it before and after backward, and behind it, in every round.
NOTHING = lambda m, o, x, y, i: None  # noqa: E731
ZERO = lambda m, o, x, y, i: o.zero_grad()  # noqa: E731
STEP = lambda m, o, x, y, i: o.step()  # noqa: E731
LOOPS = {
    "zero before": (NOTHING, ZERO, STEP, NOTHING),
    "zero outside": (ZERO, NOTHING, STEP, NOTHING),
    "zero after": (NOTHING, NOTHING, lambda m, o, *_: (o.step(), o.zero_grad()), NOTHING),
    "none by hand": (NOTHING, lambda m, *_: reset(m), STEP, NOTHING),
    "step outside": (NOTHING, ZERO, NOTHING, STEP),
    "all outside": (ZERO, NOTHING, NOTHING, STEP),
    "every second": (NOTHING, NOTHING, NOTHING, lambda m, o, x, y, i: i % 2 and (o.step(), o.zero_grad())),
    "never zero": (NOTHING, NOTHING, NOTHING, STEP),
    "clip inside": (NOTHING, ZERO, lambda m, o, *_: (optim.clip_grad_norm_(m.parameters(), 0.3), o.step()), NOTHING),
    "clip outside": (NOTHING, ZERO, NOTHING, lambda m, o, *_: (optim.clip_grad_value_(m.parameters(), 0.01), o.step())),
    "by hand inside": (NOTHING, ZERO, lambda m, *_: by_hand(m), NOTHING),
    "by hand outside": (NOTHING, ZERO, NOTHING, lambda m, *_: by_hand(m)),
    "normed": (NOTHING, ZERO, lambda m, o, *_: (normed(m), o.step()), NOTHING),
    "sharpness": (NOTHING, ZERO, lambda m, o, x, y, i: (climb(m, x, y), o.step()), NOTHING),
    "thrown away": (NOTHING, NOTHING, ZERO, NOTHING),
    "thrown away after others": (
        lambda m, o, x, y, i: F.cross_entropy(m(x), y).backward(),
        NOTHING,
        ZERO,
        lambda m, o, *_: o.step(),
    ),
}
OPTIMIZERS = {"sgd": lambda p: optim.SGD(p, 0.1, momentum=0.9), "adam": lambda p: optim.Adam(p, 0.01)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_is_what_it_is_in_eager_mode(loop, optimizer):
    before, ahead, behind, after = LOOPS[loop]
    results = []
    for make in (lambda function: function, minicnn.compile):
        minicnn.manual_seed(3)
        model = network()
        trained = OPTIMIZERS[optimizer](model.parameters())

        def function(x, y, model=model, trained=trained):
            ahead(model, trained, x, y, 0)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            behind(model, trained, x, y, 0)
            return loss

        step, found = make(function), []
        for i, (x, y) in enumerate(pairs()):
            before(model, trained, x, y, i)
            found.append(step(x, y).item())
            after(model, trained, x, y, i)
        found += [p.numpy().copy() for p in model.parameters()]
        found += [p.grad is None for p in model.parameters()]
        results.append([*found, trained.steps])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


MISUSES = {
    "never zero, step inside": (lambda m, o: None, lambda m, o: o.step(), "zero_grad inside"),
    "zeros of NumPy": (
        lambda m, o: [setattr(p, "grad", Tensor(np.zeros(p.shape, np.float32))) for p in m.parameters()],
        lambda m, o: o.step(),
        "edits a NumPy array",
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_what_cannot_be_repeated_raises(name):
    ahead, behind, message = MISUSES[name]
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)

    @minicnn.compile
    def step(x, y):
        ahead(model, optimizer)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        behind(model, optimizer)
        return loss

    with pytest.raises(RuntimeError, match=message):
        for x, y in pairs():
            step(x, y)


@pytest.mark.parametrize("both", [True, False], ids=["two plans", "a plan and eager"])
def test_gradients_that_a_step_used_up_are_added_to_and_thrown_away(both):
    """As in the tutorials of generative adversarial networks: the generator's loss goes through the discriminator."""
    results = []
    for compiled in (False, True):
        minicnn.manual_seed(3)
        maker, judge = nn.Linear(12, 12), nn.Linear(12, 1)
        makers, judges = optim.Adam(maker.parameters(), 0.01), optim.Adam(judge.parameters(), 0.01)

        def judged(x, z, maker=maker, judge=judge, judges=judges):
            judges.zero_grad()
            loss = ((judge(x) - 1.0) ** 2).mean() + (judge(maker(z).detach()) ** 2).mean()
            loss.backward()
            judges.step()
            return loss

        def made(z, maker=maker, judge=judge, makers=makers):
            makers.zero_grad()
            loss = ((judge(maker(z)) - 1.0) ** 2).mean()
            loss.backward()
            makers.step()
            return loss

        first = minicnn.compile(judged) if compiled else judged
        second = minicnn.compile(made) if compiled and both else made
        data = [x for x, _ in pairs()]
        losses = [f.item() for x, z in zip(data, data[::-1], strict=True) for f in (first(x, z), second(z))]
        results.append([*losses, *(p.numpy().copy() for m in (maker, judge) for p in m.parameters())])
        if compiled:
            with pytest.raises(RuntimeError, match="used up"):
                judge.weight.grad * 1.0
            with pytest.raises(RuntimeError, match="used up"):
                judges.step()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda x: x.detach().requires_grad_(), lambda x: Tensor(x, requires_grad=True)])
def test_the_gradient_of_an_input(make):
    model = network()

    def saliency(x, y):
        picture = make(x)
        F.cross_entropy(model(picture), y).backward()
        return picture.grad

    compiled, results = minicnn.compile(saliency), []
    for function in (saliency, compiled):
        model.zero_grad()
        found = [function(x, y).numpy() for x, y in pairs()]
        results.append(found + [p.grad.numpy() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
