"""Memory: a compiled function frees what it took, and takes little."""

import gc
import mmap
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import models, nn, optim
from minicnn.compile.binding import aligned_zeros


@pytest.fixture
def collector():
    """No cycle is collected in the test: what is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def pictures(count):
    return np.random.default_rng(count).standard_normal((count, 3, 8, 8)).astype(np.float32)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(144, 10)
    )


def predicting():
    model = network()
    return model, minicnn.compile(model)


def training():
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step(x):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), np.zeros(x.shape[0], np.int64))
        loss.backward()
        optimizer.step()
        return loss

    return model, minicnn.compile(step)


TASKS = {"predict": predicting, "train": training}


@pytest.mark.parametrize("task", TASKS)
def test_what_is_dropped_is_freed_at_once(task, collector):
    model, compiled = TASKS[task]()
    for count in (2, 9, 2):
        compiled(pictures(count))
    arrays = [weakref.ref(memory._array) for memory in compiled._memories._all]
    kept = [weakref.ref(thing) for thing in (model, *compiled.plans.values(), *compiled._memories._all)]
    assert arrays and all(thing() is not None for thing in (*arrays, *kept))
    del model, compiled
    assert [thing() for thing in (*arrays, *kept)] == [None] * len(arrays + kept)


@pytest.mark.parametrize("task", TASKS)
def test_a_plan_that_no_longer_holds_is_freed_at_once(task, collector):
    model, compiled = TASKS[task]()
    compiled(pictures(9))
    (plan,) = map(weakref.ref, compiled.plans.values())
    model[0].weight.data = model[0].weight.data.copy()
    compiled(pictures(9))
    assert plan() is None and len(compiled.plans) == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_raises_leaves_nothing(task, collector):
    model, compiled = TASKS[task]()
    for count in (2, 9):
        with pytest.raises(ValueError, match="expected weight of shape"):
            compiled(pictures(count)[:, :2])
    freed = weakref.ref(model)
    del model, compiled
    assert freed() is None


def test_sixteen_sizes_in_rotation_are_recorded_once():
    model, compiled = predicting()
    for count in range(1, 17):
        compiled(pictures(count))
    plans = set(compiled.plans.values())
    for count in 3 * [*range(1, 17)]:
        compiled(pictures(count))
    assert set(compiled.plans.values()) == plans and len(plans) == 16


def test_calls_do_not_add_up():
    layer = nn.Linear(4, 4)
    compiled, x = minicnn.compile(layer), np.ones((2, 4), np.float32)

    def added(calls):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(calls):
            compiled(x)
        gc.collect()
        return sys.getallocatedblocks() - before

    added(200)
    assert added(1000) < 100


SCRIPT = """
import resource, sys
import numpy as np, minicnn
from minicnn import Tensor, models, no_grad
model = models.create("resnet20").eval()
def eager(x):
    with no_grad():
        return model(Tensor(x))
predict = minicnn.compile(model) if sys.argv[1] == "compiled" else eager
rng = np.random.default_rng(0)
for count in [*rng.permutation(np.arange(1, 65))[:12], 64]:
    predict(rng.standard_normal((count, 3, 32, 32)).astype(np.float32))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(task):
    run = subprocess.run([sys.executable, "-c", SCRIPT, task], capture_output=True, text=True, check=True, timeout=300)
    return int(re.search(r"peak (\d+)", run.stdout).group(1)) / 1024  # MiB


def test_sizes_in_random_order_take_little_more_than_eager():
    assert peak("compiled") < 1.5 * peak("eager") + 100


@pytest.mark.parametrize("count", [1, 20])
def test_of_weights_a_prediction_keeps_the_last_form_alone(count):
    """What is folded, transformed and packed is freed where only the next of these steps read it."""
    model = models.create("resnet20").eval()
    for name, value in model.named_buffers():
        value.data = np.random.default_rng(len(name)).random(value.shape, dtype=np.float32) + 0.5
    compiled = minicnn.compile(model)
    x = np.random.default_rng(0).standard_normal((count, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(compiled(x).numpy(), model(minicnn.Tensor(x)).numpy(), rtol=0, atol=1e-5)
    (plan,) = compiled.plans.values()
    graph = plan.code.graph
    read = {graph.place_of(thing) for node in graph.nodes for thing in node.reads}
    assert graph.constants and graph.constants <= read


# The arrays themselves

LARGE = 1 << 24


def test_large_arrays_are_zeros_and_aligned():
    for length in (0, 1, 1000, (1 << 19) - 1, 1 << 19, LARGE + 1):
        array = aligned_zeros(length)
        assert array.shape == (length,) and array.dtype == np.float32 and not array.any()
        assert array.ctypes.data % 64 == 0
        array[...] = 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it reads /proc")
def test_large_arrays_go_back_to_the_system_at_once():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    array = aligned_zeros(LARGE)
    array[...] = 1
    held = resident()
    del array
    assert held - resident() > 0.9 * 4 * LARGE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_child_writes_to_a_copy():
    code = (
        "import os; from minicnn.compile.binding import aligned_zeros; a = aligned_zeros(1 << 20); pid = os.fork()\n"
        "if not pid:\n    a[...] = 1; os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0 and not a.any()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_more_than_there_is():
    with pytest.raises(MemoryError, match="Unable to allocate"):
        aligned_zeros(1 << 60)
