"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from minicnn.nn.module import Module
from minicnn.tensor import Tensor


class ModuleList(Module):
    """A list of modules, registered under their positions; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end, and return self."""
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int) -> Module:
        return list(self._modules.values())[index]


class Sequential(ModuleList):
    """Modules applied one after the other."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, input: Tensor) -> Tensor:
        for module in self:
            input = module(input)
        return input
