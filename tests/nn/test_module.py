"""The tree of modules: registration, state, modes, printing."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 3, (3, 2), bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5))
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.head = nn.Linear(3, 2)

    def forward(self, input):
        return self.head(F.flatten(F.adaptive_avg_pool2d(self.body(input), 1), 1)) * self.scale


NAMES = {  # parameters first, as they are registered, self before children; then buffers
    "scale": (1,),
    "body.0.weight": (3, 2, 3, 2),
    "body.1.weight": (3,),
    "body.1.bias": (3,),
    "head.weight": (2, 3),
    "head.bias": (2,),
    "body.1.running_mean": (3,),
    "body.1.running_var": (3,),
}


def test_state_dict_is_ordered_and_shares_memory():
    net = Net()
    state = net.state_dict()
    assert {name: t.shape for name, t in state.items()} == NAMES and list(state) == list(NAMES)
    assert np.shares_memory(state["scale"].numpy(), net.scale.numpy()) and not state["scale"].requires_grad


def test_state_dict_round_trip():
    source, target = Net(), Net()
    x = Tensor(np.random.default_rng(0).standard_normal((4, 2, 6, 5)).astype(np.float32))
    source(x)  # moves the running statistics
    arrays = {name: t.numpy().copy() for name, t in source.state_dict().items()}
    target.load_state_dict(arrays)
    for name, t in target.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), arrays[name])
        assert not np.shares_memory(t.numpy(), arrays[name])
    np.testing.assert_array_equal(target.eval()(x).numpy(), source.eval()(x).numpy())
    assert all(p.requires_grad for p in target.parameters())


def test_load_lists_everything_that_differs_and_copies_nothing():
    net = Net()
    state = {name: np.full(shape, 7, np.float32) for name, shape in NAMES.items()}
    del state["scale"], state["head.bias"]
    state |= {"body.0.bias": np.zeros(3), "head.weight": np.zeros((3, 2))}
    before = {name: t.numpy().copy() for name, t in net.state_dict().items()}
    with pytest.raises(ValueError) as raised:
        net.load_state_dict(state)
    for part in (
        "load_state_dict: Net differs",
        "missing scale (1,)",
        "missing head.bias (2,)",
        "unexpected body.0.bias (3,)",
        "head.weight: expected (2, 3), received (3, 2)",
    ):
        assert part in str(raised.value)
    for name, t in net.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), before[name])


def test_load_without_strict_takes_what_fits():
    net = Net()
    net.load_state_dict({"scale": Tensor(np.array([3.0], np.float32)), "other": np.zeros(1)}, strict=False)
    assert net.scale.item() == 3
    with pytest.raises(ValueError, match="scale: expected"):
        net.load_state_dict({"scale": np.zeros(2, np.float32)}, strict=False)


def test_loading_invalidates_the_tape():
    net = nn.Linear(2, 1)
    loss = net(Tensor([[1.0, 2.0]], requires_grad=True)).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()


def test_modes_reach_every_module_and_change_what_it_computes():
    net = Net()
    x = Tensor(np.random.default_rng(0).standard_normal((8, 2, 6, 5)).astype(np.float32))
    assert all(m.training for m in net.modules())
    assert not np.array_equal(net(x).numpy(), net(x).numpy())  # dropout
    assert net.eval() is net and not any(m.training for m in net.modules())
    state = {name: t.numpy().copy() for name, t in net.state_dict().items()}
    np.testing.assert_array_equal(net(x).numpy(), net(x).numpy())
    for name, t in net.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), state[name])
    assert all(m.training for m in net.train().modules())


def test_the_summary_restores_the_modes_of_a_mixed_tree(capsys):
    net = Net()
    net.body.eval()
    modes = [m.training for m in net.modules()]
    minicnn.summary(net, (2, 6, 5))
    assert [m.training for m in net.modules()] == modes and net.scale.grad is None
    assert "body.0" in capsys.readouterr().out
    with pytest.raises(ValueError):
        minicnn.summary(net, (3, 6, 5))
    assert [m.training for m in net.modules()] == modes
    assert not any(m._hooks for m in net.modules())


def test_the_summary_counts_a_shared_layer_at_each_call(capsys):
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu).astype(np.float64)
    lines = minicnn.summary(net, (3,)).splitlines()
    assert [line.split()[1] for line in lines[2:-2]] == ["Linear", "ReLU", "Linear", "ReLU"]
    assert lines[-1].split()[-2:] == [str(3 * 4 + 4 + 4 * 4 + 4), str(3 * 4 + 4 * 4)]


def test_every_parameter_receives_a_gradient():
    net = Net()
    x = Tensor(np.random.default_rng(0).standard_normal((4, 2, 6, 5)).astype(np.float32))
    F.cross_entropy(net(x), np.array([0, 1, 1, 0])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.numpy().any(), name
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_frozen_parameters_receive_none():
    net = Net()
    net.body.requires_grad_(False)
    net(Tensor(np.ones((2, 2, 6, 5), np.float32))).sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith("body"), name


def test_attributes_are_registered_replaced_and_forgotten():
    net = Net()
    net.head = nn.Linear(3, 5)
    net.scale = None
    net.body[1].running_mean = Tensor(np.full(3, 9, np.float32))
    state = net.state_dict()
    assert "scale" not in state and state["head.weight"].shape == (5, 3)
    assert state["body.1.running_mean"].tolist() == [9, 9, 9]
    net.head = None
    assert not any(name.startswith("head") for name in net.state_dict())


def test_a_shared_parameter_is_listed_once():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    assert [name for name, _ in nn.Sequential(a, b).named_parameters()] == ["0.weight", "0.bias", "1.bias"]


def test_assignment_before_init_is_an_error():
    class Bad(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"Bad: call super\(\).__init__\(\) before assigning layer"):
        Bad()
    with pytest.raises(TypeError, match="Module: expected a class that defines forward"):
        nn.Module()(Tensor([1.0]))


def test_hooks_see_outputs_until_they_are_removed():
    layer, seen = nn.ReLU(), []
    remove = layer.register_forward_hook(lambda module, output: seen.append((module, output.tolist())))
    layer(Tensor([-1.0, 2.0]))
    remove()
    layer(Tensor([3.0]))
    assert seen == [(layer, [0, 2])]


def test_containers():
    layers = nn.ModuleList([nn.ReLU(), nn.Tanh()])
    layers.append(nn.Sigmoid())
    assert len(layers) == 3 and layers[-1] is list(layers)[2]
    sequential = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert sequential(Tensor([[1.0, 2.0]])).shape == (1, 3)
    assert [name for name, _ in sequential.named_modules()] == ["", "0", "1"]


def test_repr():
    assert repr(nn.Sequential(nn.Linear(2, 3, bias=False), nn.Sequential(nn.Dropout(0.2)))) == (
        "Sequential(\n  (0): Linear(2, 3, bias=False)\n  (1): Sequential(\n    (0): Dropout(p=0.2)\n  )\n)"
    )


def test_astype_turns_parameters_and_buffers():
    net = Net().astype(np.float64)
    assert {t.dtype for t in net.state_dict().values()} == {np.dtype(np.float64)}
    assert net(Tensor(np.ones((2, 2, 6, 5)))).dtype == np.float64
    assert net.to("reference") is net and net.scale.backend.xp is np


@pytest.mark.gpu
def test_moving_to_the_gpu_and_back():
    net = Net().eval()
    x = Tensor(np.random.default_rng(0).standard_normal((4, 2, 6, 5)).astype(np.float32))
    expected = net(x).numpy()
    np.testing.assert_allclose(net.to("cupy")(x.to("cupy")).numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(net.to("numpy")(x).numpy(), expected)
