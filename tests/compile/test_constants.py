"""What a prediction computes of its weights once: shared by plans, remade after an edit, freed."""

import gc
import weakref

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn
from minicnn.compile import constants

SIZES = [1, 2, 3, 4, 8, 16, 17, 24, 40, 2, 1]  # in either layout, with tiles of 2 x 2 and of 4 x 4


def shaken(model):
    rng = np.random.default_rng(0)
    for _, value in (*model.named_parameters(), *model.named_buffers()):
        if value.dtype == np.float32:
            value.data = rng.random(value.shape, dtype=np.float32) + 0.5
    return model.eval()


MODELS = {
    "wide": ((16, 8, 8), lambda: nn.Conv2d(16, 150, 3, padding=1)),
    "wider": ((136, 4, 4), lambda: nn.Conv2d(136, 136, 3, padding=1)),
    "norm behind relu": ((3, 8, 8), lambda: nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.BatchNorm2d(20))),
    "folded": ((16, 8, 8), lambda: nn.Sequential(nn.Conv2d(16, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20))),
    "linear": ((37,), lambda: nn.Sequential(nn.Linear(37, 19), nn.ReLU(), nn.Linear(19, 5))),
}


@pytest.mark.parametrize("sizes", [SIZES, SIZES[::-1]], ids=["up", "down"])
@pytest.mark.parametrize("name", MODELS)
def test_batches_of_many_sizes(name, sizes):
    """The plans of one function share what is equal, and nothing else."""
    size, make = MODELS[name]
    model = shaken(make())
    compiled = minicnn.compile(model)
    for count in sizes:
        x = np.random.default_rng(count).standard_normal((count, *size)).astype(np.float32)
        expected = model(Tensor(x)).numpy()
        assert np.abs(compiled(x).numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_long_and_branching_chains():
    weight = Tensor(np.full((3, 4), 0.5, np.float32))

    def branching(x):
        w = weight
        for _ in range(60):
            w = w * 0.5 + w * 0.5
        return F.linear(x, w)

    def long(x):
        w = weight
        for _ in range(1500):
            w = w * 1.0
        return F.linear(x, w)

    for function in (branching, long):
        np.testing.assert_allclose(minicnn.compile(function)(np.ones((2, 4), np.float32)).numpy(), 2.0, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 20])
def test_results_are_whole_at_any_time(count, monkeypatch):
    """Who reads them while they are computed anew, as in another thread, finds what they were."""
    model = shaken(nn.Sequential(nn.Conv2d(16, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20), nn.Conv2d(20, 9, 1)))
    compiled = minicnn.compile(model)
    x = np.ones((count, 16, 8, 8), np.float32)
    compiled(x)
    (plan,) = compiled.plans.values()
    arrays = list(plan.code.constants.arrays.values())
    before, steps = [array.copy() for array in arrays], []
    step = constants.Binding.step

    def watched(binding, node):
        run = step(binding, node)

        def watch():
            run()
            steps.append(all(map(np.array_equal, arrays, before)))

        return watch

    monkeypatch.setattr(constants.Binding, "step", watched)
    held = model[0].weight.data  # may be edited by whoever has it: every call computes anew
    compiled(x)
    assert held is not None and len(steps) > 1 and all(steps)


def test_replaced_weights_are_freed():
    """Although another layer's constants, which the first plan made, are shared by the second."""
    model = shaken(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)))
    compiled = minicnn.compile(model)
    x = np.ones((1, 3, 9, 9), np.float32)
    compiled(x)
    old = weakref.ref(model[2].weight._data)
    model[2].weight.data = np.ones((16, 16, 3, 3), np.float32)
    compiled(x)
    gc.collect()
    assert old() is None
