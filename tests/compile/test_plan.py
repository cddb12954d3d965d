"""A compiled function does what the eager one does; the oracle is the eager run on the kernels of the specification."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, optim, random
from minicnn.models import LeNet
from minicnn.models.vgg import VGG
from shared.runs import NETWORKS, Run, agree, batches, eager, same

# LeNet

OPTIMIZERS = {
    "plain": lambda p: optim.SGD(p, 0.05),
    "nesterov": lambda p: optim.SGD(p, 0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "dampened": lambda p: optim.SGD(p, 0.05, momentum=0.9, dampening=0.3),
    "adam": lambda p: optim.Adam(p, 1e-3, weight_decay=1e-3, eps=1e-4),
    "adamw": lambda p: optim.AdamW(p, 1e-3, eps=1e-4),
}


@pytest.mark.parametrize("count", [1, 5, 8, 13, 32])
def test_lenet(count):
    data = batches(5, (count, 3, 32, 32))
    agree(Run(LeNet).train(data), eager(data, LeNet))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    data = batches(5, (9, 3, 32, 32))
    run = Run(LeNet, OPTIMIZERS[name], smoothing=0.1)
    agree(run.train(data), eager(data, LeNet, OPTIMIZERS[name], smoothing=0.1), 3e-4)
    assert run.optimizer.steps == 5


def test_learning_rate_is_followed():
    data = batches(4, (5, 3, 32, 32))
    runs = [Run(LeNet), Run(LeNet, compiled=False)]
    for images, labels in data:
        for run in runs:
            run.optimizer.lr *= 0.5
            with backend.use("numpy" if run is runs[0] else "reference"):
                run.step(Tensor(images), Tensor(labels))
    agree(runs[0].state(), runs[1].state())
    before = runs[0].state()
    runs[0].optimizer.lr = 0.0
    runs[0].step(*map(Tensor, data[0]))
    same(runs[0].state()[:10], before[:10])


@pytest.mark.parametrize("bad", [-1, 10])
def test_labels_out_of_range_in_a_replay_change_nothing(bad):
    ((images, labels),) = batches(1, (5, 3, 32, 32))
    run = Run(LeNet)
    run.train([(images, labels)])
    before = run.state()
    wrong = labels.copy()
    wrong[3] = bad
    with pytest.raises(ValueError, match="expected labels from 0 to 9"):
        run.step(images, wrong)
    same(run.state(), before)


# Bits


def test_first_step_is_a_replay_too():
    data = batches(5, (13, 3, 32, 32))
    expected = Run(LeNet).train(data)
    same(Run(LeNet).train(data), expected)
    first = Run(LeNet)
    beginning = first.train(data[:3])[:6]
    rest = Run(LeNet)
    rest.model.load_state_dict(first.model.state_dict())
    rest.optimizer.load_state_dict(first.optimizer.state_dict())
    same(beginning + rest.train(data[3:]), expected)


@pytest.mark.parametrize("recorded", [1, 2])
def test_bits_do_not_depend_on_threads(threads, recorded):
    data = batches(4, (45, 3, 32, 32))
    threads(2)
    expected = Run(LeNet).train(data)
    threads(recorded)
    run = Run(LeNet)
    results = run.train(data[:2])[:4]
    threads(3 - recorded)  # the plan is older than the number of threads
    same(results + run.train(data[2:]), expected)


def test_random_state_advances_as_in_an_eager_run():
    build, shape = NETWORKS["dropout"]
    data = batches(3, (9, *shape))
    Run(build).train(data)
    state = random.get_state()
    Run(build, compiled=False).train(data)
    assert random.get_state() == state


# Functions other than one step on one batch


def test_two_steps_in_one_function():
    (first, second, *_) = batches(4, (9, 3, 8, 5))
    build, _ = NETWORKS["padding"]

    def train(run, double):
        return [t.numpy() for t in double(first[0], first[1], second[0], second[1])] + run.state()

    def doubled(run):
        return lambda a, b, c, d: (*run.eager(a, b), *run.eager(c, d))

    run, other = Run(build), Run(build, compiled=False)
    found = train(run, minicnn.compile(doubled(run)))
    expected = train(other, lambda *arrays: doubled(other)(*map(Tensor, arrays)))
    agree(found, expected)


def test_gradients_of_two_batches_add_up():
    (a, b), (c, d) = batches(2, (9, 3, 8, 5))
    build, _ = NETWORKS["padding"]

    def both(run):
        def step(a, b, c, d):
            run.optimizer.zero_grad()
            F.cross_entropy(run.model(a), b).backward()
            F.cross_entropy(run.model(c), d).backward()
            run.optimizer.step()
            return run.model(a)

        return step

    run, other = Run(build), Run(build, compiled=False)
    minicnn.compile(both(run))(a, b, c, d)
    both(other)(*map(Tensor, (a, b, c, d)))
    agree(run.state(), other.state())


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 1, 1), (9, 6, 2)])
def test_inputs_of_other_ranks(shape):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU())
    compiled = minicnn.compile(model)
    for x, _ in batches(3, shape):
        agree([compiled(x).numpy()], [model(Tensor(x)).numpy()])


def test_two_pictures():
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 4, 3)
    compiled = minicnn.compile(lambda a, b: (first(a) + second(b), a + 0.0))
    for (a, _), (b, _) in zip(batches(2, (9, 3, 6, 5)), batches(2, (9, 2, 6, 5)), strict=True):
        found = compiled(a, b)
        agree([t.numpy() for t in found], [(first(Tensor(a)) + second(Tensor(b))).numpy(), a])


def test_labels_of_another_integer_dtype():
    data = [(x, labels.astype(dtype)) for dtype in ("int32", "uint8") for x, labels in batches(3, (9, 3, 8, 5))]
    build, _ = NETWORKS["padding"]
    agree(Run(build).train(data), eager(data, build))


# Inference


def test_model_is_recorded_in_evaluation_mode_and_follows_its_weights():
    data = batches(2, (9, 3, 32, 32))
    run = Run(lambda: VGG(widths=(4, 6), dropout=(0.2, 0.3)), compiled=False)
    predict = minicnn.compile(run.model)
    copy = {name: value.numpy().copy() for name, value in run.model.state_dict().items()}

    def check():
        found = predict(data[0][0])
        assert run.model.training and all(m.training for m in run.model.modules())
        run.model.eval()
        agree([found.numpy()], [run.model(Tensor(data[0][0])).numpy()])
        run.model.train()
        assert not found.requires_grad
        return found.numpy()

    before = check()
    run.train(data)
    assert not np.array_equal(check(), before)
    run.model.load_state_dict(copy)
    same([check()], [before])


def test_plans_are_kept_by_shape():
    model = LeNet()
    predict = minicnn.compile(model)
    for count in (*range(1, 11), 10, 1):
        ((x, _),) = batches(1, (count, 3, 32, 32))
        agree([predict(x).numpy()], [model(Tensor(x)).numpy()])
    assert len(predict.plans) == 10
    assert list(predict.plans.values())[-1].program.inputs[0].shape == (1, 3, 32, 32)


# Inputs and results


@pytest.mark.parametrize("layout", ["sliced", "fortran", "reversed", "read-only"])
def test_layouts_of_inputs(layout):
    data = batches(3, (9, 3, 8, 5))
    build, _ = NETWORKS["padding"]

    def laid(a):
        if layout == "sliced":
            return np.repeat(a, 2, axis=0)[::2]
        if layout == "read-only":
            a = a.copy()
            a.flags.writeable = False
            return a
        return np.asfortranarray(a) if layout == "fortran" else a[::-1].copy()[::-1]

    same(Run(build).train([(laid(x), laid(y)) for x, y in data]), Run(build).train(data))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_are_not_modified(dtype):
    data = batches(3, (9, 3, 8, 5), dtype=dtype)
    before = [(x.copy(), y.copy()) for x, y in data]
    build, _ = NETWORKS["padding"]
    Run(build, dtype=dtype).train(data)
    for pair, original in zip(data, before, strict=True):
        same(pair, original)


def test_results_outlive_the_next_replay():
    data = batches(2, (9, 3, 8, 5))
    build, _ = NETWORKS["padding"]
    run = Run(build)
    results = run.step(*data[0])
    copies = [r.numpy().copy() for r in results]
    run.step(*data[1])
    same([r.numpy() for r in results], copies)


@pytest.mark.parametrize("count", [5, 9])
def test_nan_reaches_the_loss_and_only_its_image(count):
    ((x, labels),) = batches(1, (count, 3, 32, 32))
    model = LeNet()
    compiled = minicnn.compile(lambda x, y: F.cross_entropy(model(x), y, reduction="none"))
    x[2, 1, 3, 4] = np.nan
    assert np.flatnonzero(np.isnan(compiled(x, labels).numpy())).tolist() == [2]
    assert np.isnan(Run(LeNet).train([(x, labels)])[0])
