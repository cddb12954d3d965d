"""A compiled function does what the eager one does; the oracle is the eager run on the kernels of the specification."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, optim, random
from minicnn.models import LeNet
from minicnn.models.resnet import ResNet
from minicnn.models.vgg import VGG


def batches(count, shape, classes=10, dtype="float32"):
    """``count`` pairs of images and labels, from a stream of their own."""
    rng = np.random.default_rng(1)
    return [(rng.standard_normal(shape).astype(dtype), rng.integers(0, classes, shape[0])) for _ in range(count)]


class Run:
    """A model, its optimizer and a training step, from a fixed seed; ``step`` is eager or compiled."""

    def __init__(self, build, optimizer=None, smoothing=0.0, dtype="float32", compiled=True):
        minicnn.manual_seed(3)
        self.model = build()
        for tensor in (*self.model.parameters(), *dict(self.model.named_buffers()).values()):
            tensor.data = tensor.data.astype(dtype) if tensor.dtype.kind == "f" else tensor.data
        self.optimizer = (optimizer or (lambda p: optim.SGD(p, 0.05, momentum=0.9)))(self.model.parameters())
        self.smoothing = smoothing
        self.step = minicnn.compile(self.eager) if compiled else self.eager

    def eager(self, images, labels):
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss, logits

    def train(self, data):
        """Losses and logits of a step on each batch, then all that the run has changed."""
        results = [t.numpy() for images, labels in data for t in self.step(Tensor(images), Tensor(labels))]
        return results + self.state()

    def state(self):
        state = [v.numpy().copy() for v in self.model.state_dict().values()]
        return state + [np.array(v) for v in self.optimizer.state_dict().values()]


def eager(data, *arguments, **options):
    with backend.use("reference"):
        return Run(*arguments, compiled=False, **options).train(data)


def agree(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        scale = np.abs(b).max(initial=1e-2)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def kinds(compiled):
    """How often each kind of node occurs in the last plan; calls as "kernel()"."""
    (*_, plan) = compiled.plans.values()
    names = [n.options["call"].kernel + "()" if n.kind == "call" else n.kind for n in plan.nodes]
    return {name: names.count(name) for name in names}


@pytest.fixture
def threads():
    before = backend.get("numpy").kernels.get_num_threads()
    yield backend.set_num_threads
    backend.set_num_threads(before)


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
    try:
        threads(2)
    except ValueError:
        pytest.skip("one processor")
    expected = Run(LeNet).train(data)
    threads(recorded)
    run = Run(LeNet)
    results = run.train(data[:2])[:4]
    threads(3 - recorded)  # the plan is older than the number of threads
    same(results + run.train(data[2:]), expected)


# Networks


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 7, 3, padding=1), nn.Conv2d(7, 7, 3, padding=1)
        self.fc = nn.Linear(7 * 3 * 2, 10)

    def forward(self, input):
        x = F.relu(self.conv1(input))
        x = F.relu(x + self.conv2(x))
        return self.fc(F.flatten(F.max_pool2d(x, (3, 4)), 1))


class Odd(nn.Module):
    """Reshapes: two in a row, back to pictures under a padded convolution, and one whose input is used twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(4 * 4 * 4, 6 * 3 * 5), nn.Linear(5 * 3 * 5, 10)

    def forward(self, input):
        n = input.shape[0]
        x = F.max_pool2d(self.conv1(input), 2)
        x = self.fc1(F.flatten(x.reshape(n, 8, 8, 1).reshape(n, 2, 32), 1))
        x = x + F.relu(x.reshape(n, 90))
        x = self.conv2(x.reshape(n, 6, 3, 5))
        return self.fc2(F.relu(F.flatten(x, 1)))


def chain(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def conv(*arguments, **options):
    return lambda: nn.Conv2d(*arguments, **options)


def fc(*arguments, **options):
    return lambda: nn.Linear(*arguments, **options)


def pool(*arguments, **options):
    return lambda: nn.MaxPool2d(*arguments, **options)


NETWORKS = {  # name: model, (C, H, W)
    "padding": (chain(conv(3, 5, (3, 2), padding=(2, 1)), nn.ReLU, pool(2), nn.Flatten, fc(5 * 5 * 3, 10)), (3, 8, 5)),
    "two padded": (
        chain(conv(3, 5, 3, padding=1), nn.ReLU, conv(5, 9, 5, padding=2), nn.ReLU, nn.Flatten, fc(9 * 42, 10)),
        (3, 6, 7),
    ),
    "stride": (
        chain(conv(3, 7, 3), conv(7, 6, (3, 2), (2, 3), bias=False), nn.ReLU, nn.Flatten, fc(6 * 12, 10)),
        (3, 11, 11),
    ),
    "stride leaves pixels": (
        chain(conv(3, 7, 1), conv(7, 6, 3, 2, padding=1), conv(6, 6, 1, 2), nn.Flatten, fc(24, 10)),
        (3, 8, 7),
    ),
    "dilation": (
        chain(conv(3, 4, 1), conv(4, 6, 3, padding=2, dilation=(2, 1)), nn.ReLU, nn.Flatten, fc(6 * 6 * 10, 10)),
        (3, 6, 8),
    ),
    "much padding": (chain(conv(3, 4, 1), conv(4, 6, 2, padding=2), nn.ReLU, nn.Flatten, fc(6 * 42, 10)), (3, 3, 4)),
    "groups": (chain(conv(3, 4, 3), nn.ReLU, conv(4, 6, 3, groups=2), nn.ReLU, nn.Flatten, fc(72, 10)), (3, 8, 7)),
    "elu": (chain(conv(3, 4, 3), nn.ELU, pool(2), nn.Flatten, fc(24, 10)), (3, 8, 7)),
    "avg pool": (
        chain(conv(3, 4, 3), nn.ReLU, lambda: nn.AvgPool2d(2), nn.Flatten, fc(24, 10)),
        (3, 8, 7),
    ),
    "overlapping pool": (
        chain(
            conv(3, 5, 3, padding=1),
            nn.ReLU,
            pool(3, 2),
            conv(5, 4, 2),
            pool((2, 1), 1),
            nn.ReLU,
            nn.Flatten,
            fc(16, 10),
        ),
        (3, 9, 7),
    ),
    "padded pool": (chain(conv(3, 5, 3), nn.ReLU, pool(3, 2, padding=1), nn.Flatten, fc(60, 10)), (3, 9, 8)),
    "linear": (chain(nn.Flatten, fc(15, 13), nn.ReLU, fc(13, 3), nn.ReLU, fc(3, 9), nn.ReLU, fc(9, 10)), (3, 1, 5)),
    "wide linear": (chain(nn.Flatten, fc(105, 67), nn.ReLU, fc(67, 129, bias=False), fc(129, 10)), (3, 7, 5)),
    "batch norm": (chain(conv(3, 5, 3), lambda: nn.BatchNorm2d(5), nn.ReLU, nn.Flatten, fc(60, 10)), (3, 6, 5)),
    "dropout": (chain(conv(3, 5, 3), nn.ReLU, lambda: nn.Dropout(0.4), nn.Flatten, fc(60, 10)), (3, 6, 5)),
    "residual": (Residual, (3, 9, 8)),
    "reshapes": (Odd, (3, 8, 8)),
    "vgg": (lambda: VGG(widths=(4, 6), dropout=(0.2, 0.3)), (3, 32, 32)),
    "resnet": (lambda: ResNet(10, (1, 1), (4, 6)), (3, 16, 16)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    build, shape = NETWORKS[name]
    data = batches(4, (11, *shape))
    agree(Run(build).train(data), eager(data, build), 1e-3 if name in ("vgg", "resnet") else 2e-4)


@pytest.mark.parametrize("name", ["stride", "overlapping pool", "dropout", "batch norm"])
def test_float64_is_plain_calls(name):
    build, shape = NETWORKS[name]
    data = batches(3, (9, *shape), dtype="float64")
    run = Run(build, dtype="float64")
    agree(run.train(data), eager(data, build, dtype="float64"), 1e-12)
    assert all(n.kind == "call" for n in next(iter(run.step.plans.values())).nodes)


def test_masks_differ_from_step_to_step_and_follow_the_seed():
    x = np.ones((3, 40), np.float32)
    compiled = minicnn.compile(lambda t: F.dropout(t * 1.0, 0.5, True))
    minicnn.manual_seed(7)
    first = [compiled(x).numpy() for _ in range(3)]
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])
    minicnn.manual_seed(7)
    same([F.dropout(Tensor(x), 0.5, True).numpy() for _ in range(3)], first)


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


FUNCTIONS = {
    "astype": lambda x: (x.astype("float64") * 2.0).astype("float32"),
    "index": lambda x: x[1:, :, ::2] + x[0, :, :2] * x[(x.argmax(0).max(0) * 0)[0, 0], 1, 0],
    "permute": lambda x: x.permute(1, 0, 3, 2).transpose(0, 1),
    "cat": lambda x: minicnn.cat([x, x * 2.0], 1) + minicnn.stack([x, x], 1).sum(1).mean(),
    "reductions": lambda x: x.max(1) + x.sum((2, 3), keepdim=True).mean() + x.argmax(3).astype("float32").mean(),
    "arithmetic": lambda x: (1.0 - x / 2.0) ** 2 - (-x).exp() / (x * x + 2.0).sqrt().log(),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "activations": lambda x: F.gelu(F.sigmoid(F.tanh(F.leaky_relu(x)))) + F.softmax(x, 1) + F.log_softmax(x, 3),
    "layer norm": lambda x: F.layer_norm(x, (4, 5)),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(F.relu(x), (2, 3)),
    "itself": lambda x: x,
    "detached": lambda x: x.detach().flatten(1),
    "mse": lambda x: F.mse_loss(x, x.permute(1, 0, 2, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_follow_their_input(name):
    function, compiled = FUNCTIONS[name], minicnn.compile(FUNCTIONS[name])
    for x, _ in batches(3, (3, 3, 4, 5)):
        with backend.use("reference"):
            expected = function(Tensor(x)).numpy()
        agree([compiled(x).numpy()], [expected], 1e-5)


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
    assert len(predict.plans) == 8
    assert list(predict.plans)[-1][0][0] == (1, 3, 32, 32)


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


# Rules


def test_lenet_step_is_fused():
    run = Run(LeNet)
    run.train(batches(1, (9, 3, 32, 32)))
    found = kinds(run.step)
    assert found["products"] == 9  # 5 forward, 4 gradients of inputs
    assert found["max_pool"] == found["max_pool_grad"] == found["weight_gradient"] == 2
    assert found["relu_grad"] == 2 and found["channel_sums"] == 5 and found["matrix"] == 3
    assert found["cross_entropy"] == found["cross_entropy_grad"] == found["sgd_step()"] / 10 == 1
    assert "relu" not in found and "conv2d()" not in found and "linear()" not in found
    (plan,) = run.step.plans.values()
    floors = [n.options["floor"] for n in plan.nodes if n.kind in ("products", "max_pool_grad")]
    assert floors.count(0.0) == 4 + 2  # after each hidden layer, under each pool
    assert str(plan).startswith("plan: 9 images in 2 blocks of 8") and "digraph" in plan.to_dot()


@pytest.mark.parametrize(
    "network, present, absent",
    [
        (chain(conv(3, 4, 3), nn.ReLU, nn.Flatten, fc(24, 10)), {"same"}, {"relu", "reshape"}),
        (chain(conv(3, 4, 3), nn.ReLU, conv(4, 4, 3, padding=1), pool(1), nn.Flatten, fc(24, 10)), {"same"}, {"relu"}),
        (chain(conv(3, 4, 3), pool(2), nn.ReLU, nn.Flatten, fc(4, 10)), {"max_pool", "relu_grad"}, {"relu"}),
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


def test_reshape_of_a_block_with_a_halo_is_a_copy():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, padding=1))
    linear = nn.Linear(24, 10)

    def both(x):
        h = model[0](x)
        return linear(F.flatten(h, 1)), model[1](h)

    compiled = minicnn.compile(both)
    ((x, _),) = batches(1, (9, 3, 5, 4))
    agree([t.numpy() for t in compiled(x)], [t.numpy() for t in both(Tensor(x))])
    assert kinds(compiled)["reshape"] == 1


def test_reshape_between_two_halos():
    first, second, third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(2, 5, 3, padding=(2, 1))

    def both(x):
        h = first(x)
        return second(h), third(h.reshape(x.shape[0], 2, 3, 4))

    compiled = minicnn.compile(both)
    ((x, _),) = batches(1, (9, 3, 5, 4))
    agree([t.numpy() for t in compiled(x)], [t.numpy() for t in both(Tensor(x))])
    assert kinds(compiled)["reshape"] == 2  # out of one halo, into the other


def test_a_relu_whose_input_is_seen_elsewhere_is_not_fused():
    layer = nn.Conv2d(3, 4, 3)
    compiled = minicnn.compile(lambda x: (F.relu(layer(x)), layer(x), F.relu(h := layer(x)) + h))
    ((x, _),) = batches(1, (9, 3, 5, 4))
    y = layer(Tensor(x)).numpy()
    agree([t.numpy() for t in compiled(x)], [np.maximum(y, 0), y, np.maximum(y, 0) + y])
    assert kinds(compiled)["relu"] == 1


def test_random_state_advances_as_in_an_eager_run():
    build, shape = NETWORKS["dropout"]
    data = batches(3, (9, *shape))
    Run(build).train(data)
    state = random.get_state()
    Run(build, compiled=False).train(data)
    assert random.get_state() == state
