"""Modules made of modules."""

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
        TypeError: something that is no Module, wherever one is put in; the list is as it was then.
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
        given = list(modules)
        self._check(*given)
        for module in given:
            self.append(module)
        return self

    __iadd__ = extend

    def insert(self, index: int, module: Module) -> ModuleList:
        """Put a module before the one at ``index``, and return self; all are then named by their positions."""
        self._check(module)
        modules = list(self)
        modules.insert(index, module)
        self._rename(modules)
        return self

    def pop(self, index: int | slice = -1) -> Any:
        """Take out what ``self[index]`` is, and return it; the others are then named by their positions."""
        found = self[index]
        del self[index]
        return found

    def _rename(self, modules: Iterable[Module]) -> None:
        """Hold these modules, named by their positions."""
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

    modules: one after the other, named by their positions, or one OrderedDict of names to modules. A slice keeps the
    names.
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
