"""Sequential and ModuleList against PyTorch's, and what they refuse."""

from collections import OrderedDict

import pytest

import minicnn.functional as F
from minicnn import Tensor, nn

NOT_MODULES = {
    "class": (nn.ReLU, r"expected modules, received the class ReLU; write ReLU\(\)"),
    "function": (F.relu, "expected modules, received the function relu; write a layer"),
    "none": (None, "expected modules, received NoneType"),
    "list": ([nn.ReLU()], "expected modules, received list"),
    "dict": ({"a": nn.ReLU()}, "expected modules, received dict"),
    "tensor": (Tensor([1.0]), "expected modules, received Tensor"),
    "text": ("relu", "expected modules, received str"),
}
WAYS = {
    "Sequential": lambda old, x: nn.Sequential(nn.Tanh(), x),
    "Sequential alone": lambda old, x: nn.Sequential(x),
    "Sequential of names": lambda old, x: nn.Sequential(OrderedDict(a=nn.Tanh(), b=x)),
    "ModuleList": lambda old, x: nn.ModuleList([nn.Tanh(), x]),
    "append": lambda old, x: old.append(x),
    "extend": lambda old, x: old.extend([nn.Tanh(), x]),
    "insert": lambda old, x: old.insert(0, x),
    "assign": lambda old, x: old.__setitem__(0, x),
    "in place": lambda old, x: old.__iadd__([x]),
}


def test_one_module_is_no_list():
    with pytest.raises(TypeError, match="ModuleList: expected modules in a list, received Tanh"):
        nn.ModuleList(nn.Tanh())


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
@pytest.mark.parametrize("name", NOT_MODULES)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_module_is_refused(kind, name, way):
    value, message = NOT_MODULES[name]
    old = nn.ModuleList([nn.ReLU()]) if kind == "ModuleList" else nn.Sequential(nn.ReLU())
    with pytest.raises(TypeError, match=message):
        WAYS[way](old, value)
    assert list(old._modules) == ["0"] and isinstance(old[0], nn.ReLU)


def chain(package, kind, count=4):
    layers = [package.Linear(i + 1, i + 2) for i in range(count)]
    if kind == "names":
        return package.Sequential(OrderedDict((f"l{i}", layer) for i, layer in enumerate(layers)))
    return package.ModuleList(layers) if kind == "ModuleList" else package.Sequential(*layers)


def seen(container):
    """Names, and of each layer its inputs."""
    return [(name, layer.in_features) for name, layer in container._modules.items()], type(container).__name__


EDITS = {
    "nothing": lambda p, c: c,
    "append": lambda p, c: c.append(p.Linear(9, 1)),
    "append twice": lambda p, c: c.append(p.Linear(9, 1)).append(p.Linear(8, 1)),
    "extend": lambda p, c: c.extend(p.Sequential(p.Linear(9, 1), p.Linear(8, 1))),
    "slice": lambda p, c: c[1:3],
    "slice to the end": lambda p, c: c[-2:],
    "every other": lambda p, c: c[::2],
    "empty slice": lambda p, c: c[4:],
    "assign": lambda p, c: (c.__setitem__(1, p.Linear(9, 1)), c)[1],
    "assign from the end": lambda p, c: (c.__setitem__(-1, p.Linear(9, 1)), c)[1],
    "delete": lambda p, c: (c.__delitem__(1), c)[1],
    "delete from the end": lambda p, c: (c.__delitem__(-1), c)[1],
    "delete a slice": lambda p, c: (c.__delitem__(slice(0, 2)), c)[1],
    "pop": lambda p, c: (c.pop(1), c)[1],
    "in place": lambda p, c: c.__iadd__(p.Sequential(p.Linear(9, 1))),
}


@pytest.mark.parametrize("kind", ["Sequential", "names", "ModuleList"])
@pytest.mark.parametrize("edit", EDITS)
def test_names_and_order_agree_with_torch(kind, edit, torch):
    ours, theirs = (EDITS[edit](package, chain(package, kind)) for package in (nn, torch.nn))
    assert seen(ours) == seen(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("kind", ["Sequential", "names", "ModuleList"])
@pytest.mark.parametrize("index", [0, 2, 4, 9, -1, -9])
def test_insert_is_that_of_a_list(kind, index):
    container, expected = chain(nn, kind), [1, 2, 3, 4]
    expected.insert(index, 9)
    assert container.insert(index, nn.Linear(9, 1)) is container
    assert seen(container)[0] == [(str(i), width) for i, width in enumerate(expected)]


@pytest.mark.parametrize("kind", ["Sequential", "names", "ModuleList"])
def test_a_slice_shares_its_modules(kind):
    whole = chain(nn, kind)
    part = whole[1:3]
    assert part[0] is whole[1] and part[-1] is whole[2]
    assert [layer.in_features for layer in part] == [2, 3]
    part.append(nn.Linear(9, 1))  # under a name that none of them has
    assert len(part) == 3 and len(whole) == 4 and [layer.in_features for layer in part] == [2, 3, 9]
    if kind != "ModuleList":
        assert part[:2](Tensor([[1.0, 2.0]])).shape == (1, 4)


def test_a_slice_of_a_class_of_ones_own():
    class Block(nn.Sequential):
        def __init__(self, width):
            super().__init__(nn.Linear(width, width), nn.ReLU())

    assert type(Block(3)[:1]) is nn.Sequential


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
@pytest.mark.parametrize("action", [
    lambda c: c[4], lambda c: c[-5], lambda c: c.__setitem__(4, nn.ReLU()), lambda c: c.__delitem__(4),
])  # fmt: skip
def test_no_such_position(kind, action):
    container = chain(nn, kind)
    with pytest.raises(IndexError):
        action(container)
    assert len(container) == 4


@pytest.mark.parametrize("name", ["a.b", "", "append", "forward"])
def test_a_name_that_cannot_be(name):
    with pytest.raises(KeyError):
        nn.Sequential(OrderedDict({name: nn.ReLU()}))


def test_an_edited_sequential_computes_what_it_shows(torch):
    ours, theirs = (
        package.Sequential(OrderedDict(a=package.Linear(3, 2), b=package.Tanh())) for package in (nn, torch.nn)
    )
    theirs.load_state_dict({name: torch.tensor(t.numpy()) for name, t in ours.state_dict().items()})
    ours[1], theirs[1] = nn.ReLU(), torch.nn.ReLU()
    ours.append(nn.Softmax(1)), theirs.append(torch.nn.Softmax(1))
    x = [[1.0, -2.0, 3.0]]
    assert ours(Tensor(x)).tolist()[0] == pytest.approx(theirs(torch.tensor(x)).tolist()[0])
    assert ours.b is ours[1]
