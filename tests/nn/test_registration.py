"""What a module takes under a name, and what it refuses, as PyTorch's does."""

import numpy as np
import pytest

from minicnn import Tensor, nn

STANDS = ["parameter", "buffer", "module", "none as parameter", "none as buffer", "plain"]
GIVEN = ["parameter", "tensor", "module", "none", "number", "class"]


def module_with(package, tensor, kind):
    module = package.Module()
    match kind:
        case "parameter":
            module.x = package.Parameter(tensor)
        case "buffer":
            module.register_buffer("x", tensor)
        case "module":
            module.x = package.Linear(1, 1)
        case "none as parameter":
            module.register_parameter("x", None)
        case "none as buffer":
            module.register_buffer("x", None)
        case _:
            module.x = 3
    return module


def given(package, tensor, kind):
    things = {"tensor": tensor, "none": None, "number": 2.0, "class": package.ReLU, "module": package.Linear(1, 1)}
    return things | {"parameter": package.Parameter(tensor)}


@pytest.mark.parametrize("stands", STANDS)
@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("times", [1, 2])
def test_assignments_agree_with_torch(stands, name, times, torch):
    outcomes = []
    for package, tensor in ((nn, Tensor([1.0])), (torch.nn, torch.tensor([1.0]))):
        module = module_with(package, tensor, stands)
        value = given(package, tensor, name)[name]
        try:
            for _ in range(times):  # None, and then something else, too
                module.x = value
                module.x = None if times == 2 else value
        except TypeError:
            outcome = "TypeError"
        else:
            parameters = [n for n, _ in module.named_parameters()]
            outcome = parameters, sorted(module.state_dict()), [n for n, _ in module.named_modules()], module.x is value
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("method", ["register_parameter", "register_buffer", "add_module"])
@pytest.mark.parametrize("value", ["parameter", "tensor", "module", "none", "number", "class"])
@pytest.mark.parametrize("name", ["y", "x", "plain", "a.b", "", "forward", "train", 3])
def test_registering_agrees_with_torch(method, value, name, torch):
    outcomes = []
    for package, tensor in ((nn, Tensor([1.0])), (torch.nn, torch.tensor([1.0]))):
        module = module_with(package, tensor, "parameter")
        module.plain = 1
        try:
            getattr(module, method)(name, given(package, tensor, value)[value])
            outcomes.append((sorted(module.state_dict()), [n for n, _ in module.named_modules()]))
        except (TypeError, KeyError) as error:
            outcomes.append(type(error) if name == "y" else "error")  # which of two mistakes is named does not matter
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", ["forward", "train", "parameters"])
@pytest.mark.parametrize("kind", ["parameter", "module"])
def test_a_name_of_the_class_is_not_taken_away(name, kind):
    module = nn.Module()
    with pytest.raises(KeyError, match=f"Module: expected a free name, received {name}, which"):
        setattr(module, name, given(nn, Tensor([1.0]), kind)[kind])
    assert callable(getattr(module, name)) and not isinstance(getattr(module, name), nn.Module)


def test_the_message_says_what_to_do():
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="Linear.weight: expected a Parameter or None, received Tensor; wrap it in one"):
        layer.weight = Tensor(np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"Module or None, received the class ReLU; write ReLU\(\)"):
        nn.Sequential(layer).add_module("act", nn.ReLU)


@pytest.mark.parametrize("layer, name", [
    (lambda: nn.Linear(2, 2, bias=False), "bias"), (lambda: nn.Conv2d(2, 2, 1, bias=False), "bias"),
    (lambda: nn.BatchNorm2d(2, affine=False), "weight"), (lambda: nn.LayerNorm(2, elementwise_affine=False), "bias"),
    (lambda: nn.MultiheadAttention(2, 1, bias=False), "in_proj_bias"),
])  # fmt: skip
def test_a_parameter_that_a_layer_has_not_is_a_parameter_when_given(layer, name):
    module = layer()
    with pytest.raises(TypeError, match="expected a Parameter"):
        setattr(module, name, Tensor(np.ones(2)))
    setattr(module, name, nn.Parameter(np.ones(2)))
    assert name in module.state_dict() and any(p is getattr(module, name) for p in module.parameters())


@pytest.mark.parametrize("kind", ["parameter", "buffer", "module"])
def test_what_is_deleted_is_forgotten(kind):
    module = module_with(nn, Tensor([1.0]), kind)
    del module.x
    assert not module.state_dict() and [n for n, _ in module.named_modules()] == [""] and not hasattr(module, "x")


def test_a_parameter_of_a_tensor():
    tensor = Tensor(np.ones(3), requires_grad=True)
    made = nn.Parameter(tensor * 2.0)
    assert made.is_leaf and made.requires_grad and made.tolist() == [2, 2, 2]
    shared = nn.Parameter(tensor)
    assert shared.data is tensor.data
    loss = (shared * shared).sum()
    tensor.requires_grad_(False).copy_(3.0)
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()


def test_the_weights_of_a_loss_are_a_buffer(torch):
    criterion = nn.CrossEntropyLoss(Tensor([1.0, 2.0, 3.0]))
    assert list(criterion.state_dict()) == ["weight"] and not list(criterion.parameters())
    model = nn.Sequential(criterion)
    model.load_state_dict({"0.weight": np.array([3.0, 1.0, 0.5])})
    criterion.astype("float64")
    logits, labels = np.random.default_rng(0).standard_normal((5, 3)), np.array([0, 2, 1, 1, 0])
    expected = torch.nn.CrossEntropyLoss(torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64))
    found = criterion(Tensor(logits), labels).item()
    assert found == pytest.approx(expected(torch.tensor(logits), torch.tensor(labels)).item())
    with pytest.raises(TypeError, match="CrossEntropyLoss.weight: expected a Tensor or None, received list"):
        nn.CrossEntropyLoss([1.0, 2.0])
    assert not nn.CrossEntropyLoss().state_dict()


def test_only_floats_are_converted():
    module = nn.Module()
    module.register_buffer("count", Tensor(np.array([1, 2])))
    module.register_buffer("mean", Tensor([1.0]))
    assert {n: str(t.dtype) for n, t in module.astype("float64").named_buffers()} == {
        "count": "int64", "mean": "float64"
    }  # fmt: skip
    with pytest.raises(TypeError, match="astype: expected float32 or float64, received int32"):
        module.astype("int32")


def test_the_state_may_hold_what_torch_counts():
    layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = {name: t.numpy() for name, t in layers.state_dict().items()}
    layers.load_state_dict(state | {"1.num_batches_tracked": np.array(7)})
    layers[1].load_state_dict(nn.BatchNorm1d(2).state_dict() | {"num_batches_tracked": np.array(7)})
    with pytest.raises(ValueError, match="unexpected 0.num_batches_tracked"):
        layers.load_state_dict(state | {"0.num_batches_tracked": np.array(7)})


def test_a_state_of_what_is_no_array_is_refused():
    layer = nn.Linear(1, 1)
    with pytest.raises(
        ValueError, match=r"weight: expected \(1, 1\), received list; bias: expected \(1,\), received float"
    ):
        layer.load_state_dict({"weight": [[1.0]], "bias": 1.0})
    with pytest.raises(ValueError, match="unexpected other NoneType"):
        layer.load_state_dict({**layer.state_dict(), "other": None})
