"""Modules that hold modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from minicnn.nn.module import Module, described
from minicnn.tensor import Tensor


class ModuleList(Module):
    """A list of modules, registered under their positions; it has no forward of its own.

    Raises:
        TypeError: something that is no Module, in whatever way it is put in; the list stays as it was.

    Example:
        >>> layers = nn.ModuleList([nn.Linear(2, 3), nn.ReLU()])
        >>> layers.append(nn.Linear(3, 1))[-1]
        Linear(3, 1)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end, and return self."""
        self._check(module)
        name = next(name for name in map(str, count(len(self))) if name not in self._modules)
        self.add_module(name, module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end, and return self."""
        if not isinstance(modules, Iterable):
            raise TypeError(f"{type(self).__name__}: expected modules in a list, received {described(modules)}")
        given = list(modules)
        self._check(*given)
        for module in given:
            self.append(module)
        return self

    __iadd__ = extend

    def insert(self, index: int, module: Module) -> ModuleList:
        """Put a module before the one at ``index``, rename all by their positions, and return self."""
        self._check(module)
        modules = list(self)
        modules.insert(index, module)
        self._rename(modules)
        return self

    def pop(self, index: int | slice = -1) -> Any:
        """Take out and return ``self[index]``, and rename the others by their positions."""
        found = self[index]
        del self[index]
        return found

    def _rename(self, modules: Iterable[Module]) -> None:
        """Replace all modules by these, named by their positions."""
        for name in list(self._modules):
            delattr(self, name)
        for position, module in enumerate(modules):
            self.add_module(str(position), module)

    def _check(self, *modules: Any) -> None:
        for module in modules:
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__}: expected modules, received {described(module)}")

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Any:
        """Return a module, or for a slice a list that shares its modules."""
        found = list(self)[index]
        return ModuleList(found) if isinstance(found, list) else found

    def __setitem__(self, index: int, module: Module) -> None:
        self._check(module)
        self.add_module(list(self._modules)[index], module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index]
        self._rename(modules)


class Sequential(ModuleList):
    """Modules applied one after the other.

    Args:
        modules: in order, named by their positions; or one OrderedDict of names to modules. A slice keeps the names.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> model(Tensor(np.zeros((3, 2, 2), "float32"))).shape
        (3, 2)
    """

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            super().__init__()
            self._check(*modules[0].values())
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            super().__init__(modules)

    def __getitem__(self, index: int | slice) -> Any:
        """Return a module, or for a slice a Sequential that shares its modules and their names."""
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def forward(self, input: Tensor) -> Tensor:
        for module in self:
            input = module(input)
        return input
