"""How many threads compute, whose settings stay as they were, and what becomes of a forked process."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from minicnn import Tensor, backend
from minicnn import functional as F
from minicnn.backend.cpu import blas, threads

NETWORK = """
import json, os, sys, threading
import numpy as np
import minicnn
from minicnn import Tensor, backend, optim
from minicnn import functional as F

minicnn.manual_seed(0)
images = Tensor(np.random.default_rng(0).normal(size=(24, 3, 32, 32)).astype(np.float32))
labels = np.arange(24) % 10
square = Tensor(np.random.default_rng(1).normal(size=(160, 160)).astype(np.float32))
model = minicnn.models.create("lenet")
optimizer = optim.SGD(model.parameters(), 0.01, momentum=0.9)

def step(images, labels):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

compiled = minicnn.compile(step)
predict = minicnn.compile(lambda images: model(images))

def work():
    "Eager kernels, two compiled plans, and products of BLAS."
    numbers = [step(images, labels).item(), compiled(images, labels).item(), predict(images).numpy().sum()]
    numbers += [(square @ square).numpy().sum(), F.avg_pool2d(images, 2).numpy().sum(), F.gelu(square).numpy().sum()]
    return [float(n) for n in numbers]
"""


def run(program, **environment):
    """What a process of its own prints, as JSON."""
    command = [sys.executable, "-c", NETWORK + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def most():
    """The number of threads before the test, and after it."""
    before = threads.get_num_threads()
    yield before
    threads.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("before", ["work()", "pass"], ids=["after the first use", "before it"])
def test_a_forked_process_computes_the_same(before):
    """In a child, in a child of that, and in a process of multiprocessing; the parent goes on as if alone."""
    (parent, *children), _ = run(f"""
import multiprocessing

{before}
def forked(target):
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, json.dumps(target()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    return json.loads(os.read(reading, 1 << 16))

def new_plan():
    return float(minicnn.compile(lambda a: F.relu(F.conv2d(a, model.parameters_of_first)))(images).numpy().sum())

model.parameters_of_first = next(iter(model.parameters()))
children = [forked(work), forked(lambda: forked(work))]
with multiprocessing.get_context("fork").Pool(2) as pool:
    children += pool.starmap(work, [()] * 2)
compiling = forked(new_plan)
parent = work()
assert compiling != 0
print(json.dumps([parent, *children]))
""")
    assert len(children) == 4 and children == [parent] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_other_threads_compute_and_compile():
    answers, _ = run("""
from numba.core.compiler_lock import global_compiler_lock
stop = threading.Event()
weight = next(iter(model.parameters()))

def busy():
    while not stop.is_set():
        F.conv2d(images, weight)
        square @ square
        with global_compiler_lock:
            stop.wait(0.01)

expected = float((square @ square).numpy().sum())
others = [threading.Thread(target=busy) for _ in range(2)]
for thread in others:
    thread.start()
answers = []
for _ in range(10):
    pid = os.fork()
    if not pid:
        same = float((square @ square).numpy().sum()) == expected
        F.conv2d(images, weight)
        minicnn.compile(lambda a: F.relu(F.conv2d(a, weight)))(images)
        os._exit(0 if same else 3)
    answers.append(os.waitpid(pid, 0)[1])
stop.set()
for thread in others:
    thread.join()
print(json.dumps(answers))
""")
    assert answers == [0] * 10


def test_the_number_of_threads_holds_for_the_whole_process(most):
    threads.set_num_threads(1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads.get_num_threads).result() == 1
        pool.submit(threads.set_num_threads, most).result()
        assert threads.get_num_threads() == most and pool.submit(threads.get_num_threads).result() == most


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads that Linux shows")
def test_one_thread_is_one_in_every_thread_of_python():
    """The team is not even started, in the thread that asked for it or in another."""
    (eager, other, all_of_them), _ = run(
        """
def count():
    return len(os.listdir("/proc/self/task"))

F.relu(images)
backend.set_num_threads(1)
before = count()
work()
eager = count() - before
inside = []
thread = threading.Thread(target=lambda: (work(), inside.append(count())))
thread.start()
thread.join()
other = inside[0] - before - 1  # without itself
while os.path.exists(f"/proc/self/task/{thread.native_id}"):
    pass
backend.set_num_threads(2)
work()
print(json.dumps([eager, other, count() - before]))
""",
        NUMBA_NUM_THREADS="2",
        OPENBLAS_NUM_THREADS="1",
    )
    assert (eager, other, all_of_them) == (0, 0, 1)


@pytest.mark.parametrize("count", [0, -1, 10**6])
def test_a_number_of_threads_that_there_is_not(most, count):
    with pytest.raises(ValueError, match=rf"set_num_threads: expected 1 to \d+, received {count}"):
        threads.set_num_threads(count)
    assert threads.get_num_threads() == most


def test_kernels_in_many_threads_of_python_give_the_same_bits(rng):
    """While the team works for one of them, the others work alone."""
    images = [Tensor(rng.normal(size=(16, 4, 12, 12)).astype(np.float32)) for _ in range(4)]
    weight = Tensor(rng.normal(size=(8, 4, 3, 3)).astype(np.float32))

    def features(x):
        y = F.gelu(F.conv2d(F.max_pool2d(x, 2), weight))
        return F.softmax(y.reshape(16, -1) @ y.reshape(16, -1).transpose(0, 1), -1).numpy()

    expected = [features(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [features(x) for x in images], range(40)):
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def set_by_others():
    """What another library has set for the BLAS libraries: more than one thread."""
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        yield counts()


def counts():
    return {
        (each["filepath"], each["num_threads"])
        for each in threadpoolctl.threadpool_info()
        if each["user_api"] == "blas"
    }


PRODUCTS = {
    "small": lambda: Tensor(np.ones((4, 4))) @ Tensor(np.ones((4, 4))),
    "middle": lambda: Tensor(np.ones((64, 64))) @ Tensor(np.ones((64, 64))),
    "large": lambda: Tensor(np.ones((200, 200))) @ Tensor(np.ones((200, 200))),
    "stack": lambda: Tensor(np.ones((8, 80, 80))) @ Tensor(np.ones((8, 80, 80))),
    "broadcast": lambda: Tensor(np.ones((8, 80, 80))) @ Tensor(np.ones((80, 80))),
    "linear": lambda: F.linear(Tensor(np.ones((64, 200))), Tensor(np.ones((300, 200)))),
    "few images": lambda: F.conv2d(Tensor(np.ones((1, 8, 32, 32))), Tensor(np.ones((16, 8, 3, 3)))),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_others_set_for_blas_is_as_before_after_each_call(name, set_by_others):
    PRODUCTS[name]()
    assert counts() >= set_by_others and {count for _, count in counts()} == {2}


@pytest.mark.parametrize("name", sorted(PRODUCTS.keys() - {"small"}))
def test_our_products_run_with_one_thread_of_blas(name, set_by_others, monkeypatch):
    inside = []
    leave = blas._OneThread._restore
    monkeypatch.setattr(blas._OneThread, "_restore", lambda self: (inside.append(counts()), leave(self)))
    PRODUCTS[name]()
    assert inside and all(count == 1 for seen in inside for _, count in seen)


def test_a_product_that_fails_restores_them(set_by_others):
    with pytest.raises(ValueError), blas.one_thread:
        np.ones((3, 4)) @ np.ones((3, 4))
    assert {count for _, count in counts()} == {2}


def test_the_last_of_several_threads_restores_them(set_by_others):
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first():
        with blas.one_thread:
            first_in.set()
            second_in.wait()
        first_out.set()

    def second():
        first_in.wait()
        with blas.one_thread:
            second_in.set()
            first_out.wait()
            return {count for _, count in counts()}

    with ThreadPoolExecutor(2) as pool:
        pool.submit(first)
        assert pool.submit(second).result() == {1}
    assert {count for _, count in counts()} == {2}


def test_what_another_sets_meanwhile_stays(set_by_others):
    with blas.one_thread:
        outer = threadpoolctl.threadpool_limits(3, user_api="blas")
    try:
        assert {count for _, count in counts()} == {3}
    finally:
        outer.restore_original_limits()
        threadpoolctl.threadpool_limits(2, user_api="blas")


def test_importing_and_using_minicnn_leaves_other_libraries_alone():
    (before, imported, used), _ = run(
        """
import threadpoolctl
def counts():
    return sorted(each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas")
imported = counts()
work()
print(json.dumps([2, sorted(set(imported)), sorted(set(counts()))]))
""",
        OPENBLAS_NUM_THREADS="2",
    )
    if imported:  # a BLAS whose threads can be asked for
        assert imported == used == [before]


def test_the_name_of_the_backend_reaches_it(most):
    backend.set_num_threads(1)
    assert backend.get_num_threads() == 1


WAITING = """
import os
before = dict(os.environ)
from minicnn.backend.cpu import threads
threads.start()
assert os.environ == before
"""


@pytest.mark.parametrize(
    ("user", "expected"), [({}, "'10000'"), ({"GOMP_SPINCOUNT": "77"}, "'77'"), ({"OMP_WAIT_POLICY": "passive"}, "'0'")]
)
def test_the_team_waits_for_a_short_time_unless_a_user_says_how(user, expected):
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment |= {"OMP_DISPLAY_ENV": "verbose", "NUMBA_THREADING_LAYER": "omp"} | user
    done = subprocess.run([sys.executable, "-c", WAITING], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = [line.split("=")[1].strip() for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not shown:
        pytest.skip("another OpenMP than GNU's")
    assert shown == [expected]
