"""Narrow versions of the models: bits, threads, what is left to calls, how much is computed, what a failure leaves."""

import sys

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn, optim, random, recording
from minicnn.models import LeNet
from minicnn.models.resnet import BasicBlock, Projection, ResNet
from minicnn.models.vgg import VGG
from shared.runs import Run, agree, batches, eager, kinds, nodes_of, same

MEANS = ("copy", "sum", "mean", "divide", "broadcast_to")
MODELS = {
    "vgg": (lambda: VGG(widths=(16, 24), dropout=(0.2, 0.3)), 32),
    "resnet": (lambda: ResNet(10, BasicBlock, (1, 2), (16, 24), Projection), 16),
}


@pytest.mark.parametrize("name", MODELS)
def test_threads_change_no_bit(threads, name):
    build, size = MODELS[name]
    data = batches(3, (21, 3, size, size))
    threads(1)
    expected = Run(build).train(data)
    threads(2)
    same(Run(build).train(data), expected)
    wide = [(images.astype(np.float64), labels) for images, labels in data]
    agree(expected, eager(wide, build, dtype="float64"), 1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_left_to_calls(name):
    build, size = MODELS[name]
    run = Run(build)
    run.train(batches(1, (9, 3, size, size)))
    rest = {
        f"{kernel}()"
        for kernel in ("check_on_replay", "sgd_step", "lerp_into", "multiply", "add", "power", "reshape", *MEANS)
    }
    if name == "resnet":  # the factors of average pooling
        rest |= {"window_means()", "transpose()"}
    (plan,) = run.step.plans.values()
    activations = [n.operands["x"] for n in nodes_of(plan) if n.kind == "deinterleave"]
    smallest = 8 if name == "resnet" else 1  # what average pooling and the last layer see
    assert all(b.height <= smallest and b.width <= smallest for b in activations), activations
    left = {kind for kind in kinds(run.step) if kind.endswith("()")}
    assert left <= rest, left - rest


def layers_of(model, size):
    """Multiply-adds of each convolution and linear layer for one image of ``size``."""
    counts = []

    def counted(kernel, taps_of):
        def noted(input, weight, *rest, **options):
            y = kernel(input, weight, *rest, **options)
            counts.append(y.numel() * taps_of(weight))
            return y

        return noted

    with pytest.MonkeyPatch.context() as patch:
        for name in ("conv2d", "linear"):
            patch.setattr(F, name, counted(getattr(F, name), lambda w: w.numel() // w.shape[0]))
        model.eval()(Tensor(np.zeros((1, 3, size, size), np.float32)))
    model.train()
    return counts


@pytest.mark.parametrize("count", [8, 13])
@pytest.mark.parametrize("build, size, first", [(LeNet, 32, 5), (*MODELS["vgg"], 3), (*MODELS["resnet"], 3)])
def test_flop(build, size, first, count):
    run = Run(build)
    forward = layers_of(run.model, size)
    predict = minicnn.compile(run.model)
    ((x, labels),) = batches(1, (count, 3, size, size))
    predict(x)
    run.train([(x, labels)])
    (training,), (prediction,) = run.step.plans.values(), predict.plans.values()
    assert prediction.flop() == 2 * sum(forward) * count
    assert training.flop() == 2 * (3 * sum(forward) - forward[0]) * count  # no gradient for the pictures


# Failures


@pytest.mark.parametrize("fault", ["labels", "inspect", "interrupt"])
def test_a_replay_that_raises_counts_no_step(fault):
    data = batches(3, (9, 3, 32, 32))
    run, failing = Run(LeNet, compiled=False), []

    def look(array):
        if failing:
            raise failing[0]

    def step(images, labels):
        loss, logits = run.eager(images, labels)
        recording.check_on_replay(loss.data, look)
        return loss, logits

    compiled = minicnn.compile(step)
    compiled(*data[0])
    streams = random.get_state()
    images, labels = data[1][0], data[1][1].copy()
    if fault == "labels":
        labels[4] = 10
        error = ValueError
    else:
        error = FloatingPointError if fault == "inspect" else KeyboardInterrupt
        failing.append(error("of the test"))
    before = run.state() if fault == "labels" else None
    with pytest.raises(error):
        compiled(images, labels)
    assert run.optimizer.steps == 1
    if before is not None:  # nothing was begun
        same(run.state(), before)
        assert random.get_state() == streams
    failing.clear()
    compiled(*data[2])
    assert run.optimizer.steps == 2


@pytest.mark.parametrize("name", [*MODELS, "lenet"])
def test_recording_has_no_effect(name, monkeypatch):
    """The record is made, and the run ends before the first replay."""
    build, size = MODELS.get(name, (LeNet, 32))
    run = Run(build)
    ((x, labels),) = batches(1, (9, 3, size, size))
    before, streams, inputs = run.state(), random.get_state(), (x.copy(), labels.copy())

    class Recorded(Exception):
        pass

    def stop(program, _):
        assert {"sgd_step", "conv2d_grad_weight"} <= {call.kernel for call in program.calls}
        raise Recorded

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["minicnn.compile"], "compiled", stop)
        with pytest.raises(Recorded):
            run.step(x, labels)
    same(run.state(), before)
    same((x, labels), inputs)
    assert random.get_state() == streams and run.optimizer.steps == 0
    results = run.train([(x, labels)])
    same(results, Run(build).train([(x, labels)]))


def test_recording_does_not_move_statistics():
    norm = nn.BatchNorm2d(3)
    compiled = minicnn.compile(lambda x: norm(x * 1.0))
    x = 7 + np.random.default_rng(0).standard_normal((9, 3, 4, 5)).astype(np.float32)
    compiled(x)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * x.mean((0, 2, 3)), rtol=1e-5)  # one step, not two


def test_three_steps_in_one_plan_follow_eager():
    """The filters that Winograd's convolution makes of a weight are those of its own step."""

    def losses(compiled):
        minicnn.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(16 * 64, 5))
        optimizer = optim.SGD(model.parameters(), 0.1, 0.9)

        def steps(images, labels):
            found = []
            for _ in range(3):
                found.append(F.cross_entropy(model(images), labels))
                optimizer.zero_grad()
                found[-1].backward()
                optimizer.step()
            return tuple(found)

        run = minicnn.compile(steps) if compiled else steps
        images = np.random.default_rng(1).standard_normal((16, 3, 8, 8), dtype=np.float32)
        inputs = Tensor(images), Tensor(np.arange(16) % 5)
        return [loss.item() for _ in range(2) for loss in run(*inputs)]

    assert losses(True) == pytest.approx(losses(False), rel=1e-5)
