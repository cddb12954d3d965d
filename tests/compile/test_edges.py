"""What lies at the edges of compile: odd functions and dtypes, other plans, numbers that are none, many parts."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn
from minicnn.compile.record import record
from minicnn.models import LeNet
from minicnn.models.resnet import BasicBlock, Projection, ResNet
from minicnn.models.vgg import VGG
from minicnn.nn.module import evaluating
from shared.runs import NETWORKS, Run, agree, batches, eager, nodes_of, same

COUNTS = [2, 9]  # one by one, and in lanes


# Threads

MANY = 8 * 9 + 3  # more blocks than parts, more parts than threads
THREADED = {
    "lenet": (LeNet, 32),
    "vgg": (lambda: VGG(widths=(4, 16), dropout=(0.2, 0.3)), 32),
    "resnet": (lambda: ResNet(10, BasicBlock, (1, 1), (16, 16), Projection), 8),
}


@pytest.mark.parametrize("task", ["train", "predict"])
@pytest.mark.parametrize("name", THREADED)
def test_more_blocks_than_parts(threads, name, task):
    build, size = THREADED[name]
    data, found = batches(2, (MANY, 3, size, size)), []
    for number in (1, 2, 1):
        threads(number)
        run = Run(build)
        if task == "train":
            found.append(run.train(data))
        else:
            predict = minicnn.compile(run.model)
            found.append([predict(x).numpy() for x, _ in data])
    same(found[1], found[0])
    same(found[2], found[0])
    if task == "predict":
        run.model.eval()
        agree(found[0], [run.model(Tensor(x)).numpy() for x, _ in data])
    elif name == "lenet":
        agree(found[0], eager(data, build))


# Integers and other dtypes


LABELS = {
    "times one": lambda y: y * 1,
    "plus and minus": lambda y: (y + 3) - 3,
    "reversed": lambda y: 9 - y,
    "indexed": lambda y: y[:],
}


@pytest.mark.parametrize("count", [3, 9])
@pytest.mark.parametrize("name", LABELS)
def test_computed_labels(name, count):
    layer = nn.Linear(12, 10)

    def function(x, y):
        return F.cross_entropy(layer(x), LABELS[name](y)), LABELS[name](y)

    compiled = minicnn.compile(function)
    for x, y in batches(3, (count, 12)):
        for a, b in zip(compiled(x, y), function(Tensor(x), Tensor(y)), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["times one", "plus and minus"])
@pytest.mark.parametrize("bad", [-1, 10])
def test_computed_labels_out_of_range_in_a_replay(bad, name):
    layer = nn.Linear(12, 10)
    compiled = minicnn.compile(lambda x, y: F.cross_entropy(layer(x), LABELS[name](y)))
    ((x, y),) = batches(1, (9, 12))
    compiled(x, y)
    y[3] = bad
    with pytest.raises(ValueError, match="expected labels from 0 to 9"):
        compiled(x, y)


@pytest.mark.parametrize("count", [3, 9])
def test_one_hot_through_kernels(count):
    """1 where a label is the class: through an index, and through arithmetic on integers."""
    eye, classes = Tensor(np.eye(10, dtype=np.float32)), Tensor(np.arange(10))
    layer = nn.Linear(12, 10)

    def function(x, y):
        logits = F.log_softmax(layer(x), 1)
        far = (y.reshape(count, 1) - classes).astype("float32")
        near = 1.0 - F.relu(1.0 - F.relu(1.0 - far * far)) ** 2
        return -(logits * near).sum(1).mean(), near, eye

    compiled = minicnn.compile(function)
    for x, y in batches(3, (count, 12)):
        found = [t.numpy() for t in compiled(x, y)]
        agree(found, [t.numpy() for t in function(Tensor(x), Tensor(y))], 1e-5)
        np.testing.assert_array_equal(found[1], np.eye(10)[y])


@pytest.mark.parametrize("count", COUNTS)
def test_float64_predictions_are_calls(count):
    run = Run(LeNet, dtype="float64", compiled=False)
    compiled = minicnn.compile(run.model)
    for x, _ in batches(2, (count, 3, 32, 32), dtype="float64"):
        y = compiled(x)
        assert y.dtype == np.float64
        with backend.use("reference"):
            agree([y.numpy()], [run.model(Tensor(x)).numpy()], 1e-12)
    (plan,) = compiled.plans.values()
    assert all(node.kind == "call" for node in nodes_of(plan))


@pytest.mark.parametrize("count", COUNTS)
def test_dtypes_side_by_side(count):
    narrow, wide = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    for p in wide.parameters():
        p.data = p.data.astype(np.float64)

    def function(x, z):
        return narrow(x), wide(z), narrow(z.astype("float32")), wide(x.astype("float64"))

    compiled = minicnn.compile(function)
    for x, _ in batches(2, (count, 3, 6, 12)):
        z = x.astype(np.float64) * 2
        found, expected = compiled(x, z), function(Tensor(x), Tensor(z))
        assert [t.dtype for t in found] == [t.dtype for t in expected]
        agree([t.numpy() for t in found], [t.numpy() for t in expected], 1e-5)


# Recording


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_parameters_are_neither_read_nor_written(value):
    """The record of a step: every bit of the state stays, also bits that float arithmetic would not keep."""
    run = Run(NETWORKS["batch norm"][0], compiled=False)
    ((x, labels),) = batches(1, (9, *NETWORKS["batch norm"][1]))
    states = [*run.model.parameters(), *dict(run.model.named_buffers()).values()]
    for tensor in states:
        if tensor.dtype.kind == "f":
            tensor.data[...] = value
            tensor.data.reshape(-1)[0] = -0.0
    before = [t.data.tobytes() for t in states]
    with np.errstate(all="raise"):
        program = record(run.eager, [x, labels])
    assert [t.data.tobytes() for t in states] == before and run.optimizer.steps == 0
    assert [call.kernel for call in program.calls].count("sgd_step") == len(list(run.model.parameters()))


def test_compile_without_a_tape():
    model = LeNet()
    with minicnn.no_grad():
        compiled = minicnn.compile(model)
        ((x, _),) = batches(1, (9, 3, 32, 32))
        inside = compiled(x).numpy()
    same([inside], [compiled(x).numpy()])
    agree([inside], [model(Tensor(x)).numpy()])
    run = Run(LeNet)
    with minicnn.no_grad(), pytest.raises(RuntimeError):
        run.step(*map(Tensor, batches(1, (9, 3, 32, 32))[0]))
    data = batches(2, (9, 3, 32, 32))
    agree(run.train(data), eager(data, LeNet))


@pytest.mark.parametrize("warm", [True, False])
def test_compile_inside_compile(warm):
    """Follows its input or says that it cannot; never a frozen result."""
    layer = nn.Conv2d(3, 4, 3)
    inner = minicnn.compile(lambda t: F.relu(layer(t)))
    outer = minicnn.compile(lambda t: inner(t) * 2.0)
    (first, _), (second, _) = batches(2, (9, 3, 6, 5))
    if warm:
        inner(first)
    try:
        outer(first)
    except RuntimeError:
        return
    agree([outer(second).numpy()], [2 * F.relu(layer(Tensor(second))).numpy()])


def test_an_input_without_axes():
    assert minicnn.compile(lambda t: t * 2.0)(np.array(3, np.float32)).item() == 6


# Numbers that are none, and blocks with a halo


@pytest.mark.parametrize("count", COUNTS)
def test_padding_that_sees_no_pixel_is_the_bias(count):
    """Rows of a result that see padding alone are the bias, whatever lies elsewhere in the picture."""
    first, second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, padding=2)
    ((x, _),) = batches(1, (count, 3, 10, 10))
    x[1, :, 0, 0] = np.nan
    y = minicnn.compile(lambda t: second(first(t)))(x).numpy()
    border = np.ones((14, 14), dtype=bool)
    border[2:12, 2:12] = False
    np.testing.assert_array_equal(np.isnan(y[1]).sum((1, 2)), [1] * 4)
    np.testing.assert_array_equal(y[..., border], np.broadcast_to(second.bias.numpy()[:, None], (count, 4, 52 + 44)))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["padding", "two padded", "stride leaves pixels", "much padding", "linear", "vgg"])
def test_nothing_is_left_of_a_replay_that_went_wrong(name, count):
    """After pictures of NaN and of infinity the next prediction is the one of before."""
    build, shape = NETWORKS[name]
    model = Run(build, compiled=False).model
    compiled = minicnn.compile(model)
    ((x, _),) = batches(1, (count, *shape))
    before = compiled(x).numpy()
    for value in (np.nan, np.inf):
        compiled(np.full_like(x, value))
    same([compiled(x).numpy()], [before])


@pytest.mark.parametrize("outputs", [4, 40])
@pytest.mark.parametrize("count", COUNTS)
def test_nothing_is_left_of_a_picture_of_nan_under_wide_padding(count, outputs):
    first, second = nn.Conv2d(3, outputs, 1), nn.Conv2d(outputs, outputs, 1, padding=2)
    compiled = minicnn.compile(lambda t: second(first(t)))
    ((x, _),) = batches(1, (count, 3, 10, 10))
    compiled(np.full_like(x, np.nan))
    assert np.isfinite(compiled(x).numpy()).all()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("padding", [2, (60, 0), (0, 60)])
def test_products_read_inside_the_memory(padding, count):
    compiled = minicnn.compile(nn.Conv2d(3, 4, 1, padding=padding))
    compiled(batches(1, (count, 3, 10, 10))[0][0])
    (plan,) = compiled.plans.values()
    name = "channel_products" if plan.code.graph.layout.is_shared else "products"
    declared, table, found = plan.code.machine.INSTRUCTIONS[name], plan.code.table, 0
    for row in (r for program in plan.machine_programs for r in program if r[0] == declared.code):
        words = dict(declared.words(row))
        (x, _), (starts,), (taps,) = words["x"], words["x_columns"], words["x_steps"]
        (columns,), (steps,) = words["columns"], words["steps"]
        assert x + table[starts : starts + columns].min() + table[taps : taps + steps].min() >= 0
        found += 1
    assert found


class Vectors(nn.Module):
    """A single pixel is flattened, and is also the input of a padded convolution: its block has a halo."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=5), nn.Linear(4, 10)

    def forward(self, input):
        h = F.max_pool2d(self.conv1(input), 8)
        return self.fc(F.flatten(h, 1)), F.flatten(h, 1), self.conv2(h)


@pytest.mark.parametrize("count", COUNTS)
def test_a_flat_block_with_a_halo(count):
    model = Vectors()
    compiled = minicnn.compile(model)
    for x, _ in batches(2, (count, 3, 8, 8)):
        agree([t.numpy() for t in compiled(x)], [t.numpy() for t in model(Tensor(x))], 1e-5)


@pytest.mark.parametrize("count", COUNTS)
def test_the_loss_of_a_flat_block_with_a_halo(count):
    model = Vectors()

    def function(x, y):
        _, logits, other = model(x)
        return F.cross_entropy(logits, y), other

    compiled = minicnn.compile(function)
    for x, y in batches(2, (count, 3, 8, 8), 4):
        agree([t.numpy() for t in compiled(x, y)], [t.numpy() for t in function(Tensor(x), Tensor(y))], 1e-5)


def test_a_result_of_a_call_that_an_instruction_reads_stays_plain():
    def function(x):
        v = x.exp()
        return v * 2.0, F.adaptive_avg_pool2d(v, 1), v

    compiled = minicnn.compile(function)
    ((x, _),) = batches(1, (9, 3, 4, 4))
    for _ in range(2):
        agree([t.numpy() for t in compiled(x)], [t.numpy() for t in function(Tensor(x))], 1e-6)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_picture_edited_between_two_convolutions(kernel):
    conv = nn.Conv2d(16, 16, kernel, padding=1)
    buffer = Tensor(np.zeros((9, 16, 8, 8), np.float32))

    def function(x):
        before = conv(buffer)
        buffer.copy_(x)
        return before, conv(buffer)

    compiled, results = minicnn.compile(function), []
    for run in (compiled, function):
        buffer.copy_(0.0)
        results.append([t.numpy() for x, _ in batches(2, (9, 16, 8, 8)) for t in run(Tensor(x))])
    agree(*results, 1e-5)


@pytest.mark.parametrize("held", [False, True])
def test_a_linear_layer_on_what_no_instruction_has_made(held):
    """The gradient of a mean comes from calls; the picture is a state."""
    layer, state = nn.Linear(12, 1), Tensor(np.random.default_rng(0).standard_normal((9, 12)).astype(np.float32))

    def function(x):
        layer.weight.grad = None
        loss = layer(state if held else F.flatten(x, 1)).mean()
        loss.backward()
        return loss, layer.weight.grad

    compiled = minicnn.compile(function)
    for x, _ in batches(2, (9, 3, 2, 2)):
        agree([t.numpy() for t in compiled(x)], [t.numpy() for t in function(Tensor(x))], 1e-5)
        state.data *= 1.5


# Beside the calls


@pytest.mark.parametrize("function", [lambda x: x, nn.Identity(), lambda x: (x, x)])
def test_a_function_that_calls_nothing(function):
    ((x, _),) = batches(1, (9, 3, 4, 4))
    found = minicnn.compile(function)(x)
    for result in found if isinstance(found, tuple) else (found,):
        same([result.numpy()], [x])


def test_labels_that_were_edited_are_those_of_the_loss():
    """The machine reads labels where they are fed; these are a copy, with other numbers."""

    def function(x, y):
        labels = minicnn.tensor(y)
        labels += 1
        return F.cross_entropy(x, labels)

    ((x, y),) = batches(1, (9, 12), 10)
    compiled = minicnn.compile(function)
    for labels in (y, 9 - y):
        agree([compiled(Tensor(x), labels).numpy()], [function(Tensor(x), Tensor(labels)).numpy()], 1e-6)


def test_evaluation_of_the_context_is_another_plan():
    layer = nn.Dropout(0.5)
    compiled = minicnn.compile(lambda x: layer(x) + 0.0)
    x = np.ones((9, 64), np.float32)
    with minicnn.no_grad():
        for _ in range(2):
            assert (compiled(x).numpy() == 0).any()
            with evaluating():
                same([compiled(x).numpy()], [x])
