"""Module: a tree of layers with named parameters and buffers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minicnn import backend
from minicnn.autograd import no_grad
from minicnn.backend import Backend
from minicnn.recording import current
from minicnn.tensor import Tensor

_evaluating: ContextVar[bool] = ContextVar("evaluating", default=False)


class _Structure:
    """When an attribute of any module was last set: what was derived from modules before is to be checked then."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.number = 0

    def change(self) -> None:
        """Note a change."""
        self.number = next(self._numbers)


structure = _Structure()


class Parameter(Tensor):
    """A tensor that a module trains."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)


class Module:
    """Base class of layers and models.

    Assigning a :class:`Parameter` or a Module to an attribute registers it; ``forward`` computes. ``training`` tells
    layers that behave differently in training (dropout, batch norm) which it is. Predictions change no module: inside
    :func:`evaluating` every module says that it is not in training, to this thread alone.
    """

    def __init__(self) -> None:
        self.training = True
        self._parameters: dict[str, Parameter] = {}
        self._buffers: dict[str, Tensor] = {}
        self._modules: dict[str, Module] = {}
        self._hooks: list[Callable[[Module, Tensor], None]] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Module) and "_modules" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name}")
        home = "_parameters" if isinstance(value, Parameter) else "_modules" if isinstance(value, Module) else None
        if home is None and isinstance(value, Tensor) and name in self.__dict__.get("_buffers", {}):
            home = "_buffers"
        for registry in ("_parameters", "_buffers", "_modules"):
            if registry == home:
                self.__dict__[registry][name] = value
            else:  # whatever stood under this name before is replaced
                self.__dict__.get(registry, {}).pop(name, None)
        super().__setattr__(name, value)
        structure.change()

    @property
    def training(self) -> bool:
        """Whether the module is in training, as :meth:`train` and :meth:`eval` set it, and not just evaluated."""
        return self._training and not _evaluating.get()

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def register_buffer(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor that is saved with the parameters but not trained."""
        self._buffers[name] = tensor
        super().__setattr__(name, tensor)
        structure.change()

    def register_forward_hook(self, hook: Callable[[Module, Tensor], None]) -> Callable[[], None]:
        """Call ``hook(module, output)`` after every forward; call the returned function to end that."""
        self._hooks.append(hook)
        structure.change()

        def remove() -> None:
            self._hooks.remove(hook)
            structure.change()

        return remove

    def forward(self, *inputs: Any) -> Any:
        """Compute the output. Every subclass that is called defines it."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any) -> Any:
        recorder = current.get()
        if recorder is not None:
            recorder.relies_on(self)
        output = self.forward(*inputs)
        for hook in self._hooks:
            hook(self, output)
        return output

    # The tree

    def children(self) -> Iterator[Module]:
        """Yield the modules directly below."""
        yield from self._modules.values()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module), self first, in the order of registration."""
        yield prefix, self
        for name, child in self._modules.items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """Yield self and all modules below."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter), one that is shared only once."""
        seen: list[Parameter] = []
        for prefix, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if not any(parameter is other for other in seen):
                    seen.append(parameter)
                    yield (f"{prefix}.{name}" if prefix else name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield all parameters in order."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer)."""
        for prefix, module in self.named_modules():
            for name, buffer in module._buffers.items():
                yield (f"{prefix}.{name}" if prefix else name), buffer

    # State

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters, then buffers, by dotted name; they share memory with the module."""
        state = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return state | {name: buffer.detach() for name, buffer in self.named_buffers()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy tensors or arrays of the same names into the module.

        Raises:
            ValueError: keys that are missing or unexpected (unless not ``strict``), or shapes that differ; nothing is
                copied then.
        """
        own = self.state_dict()
        problems = []
        if strict:
            problems += [f"missing {name} {own[name].shape}" for name in own if name not in state]
            problems += [f"unexpected {name} {tuple(state[name].shape)}" for name in state if name not in own]
        for name in own:
            if name in state and own[name].shape != tuple(state[name].shape):
                problems.append(f"{name}: expected {own[name].shape}, received {tuple(state[name].shape)}")
        if problems:
            raise ValueError(f"load_state_dict: {type(self).__name__} differs: " + "; ".join(problems))
        for name, tensor in own.items():
            if name in state:
                source = state[name].data if isinstance(state[name], Tensor) else state[name]
                owner = backend.of(tensor.data)
                owner.kernels.copy_into(tensor.data, owner.asarray(source))
                tensor._version.number += 1

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Module:
        """Switch self and all below to training (or, with False, to evaluation), and return self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch self and all below to evaluation, and return self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Train the parameters or freeze them, and return self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def to(self, target: str | Backend) -> Module:
        """Move parameters and buffers to a backend in place, and return self. Their gradients are forgotten."""
        for tensor in (*self.parameters(), *(buffer for _, buffer in self.named_buffers())):
            tensor.data = tensor.to(target).data
            tensor.grad = None
        return self

    def astype(self, dtype: Any) -> Module:
        """Turn parameters and buffers into float32 or float64 in place, and return self."""
        for tensor in (*self.parameters(), *(buffer for _, buffer in self.named_buffers())):
            tensor.data = tensor.data.astype(dtype)
            tensor.grad = None
        return self

    def extra_repr(self) -> str:
        """Return the options to print between the brackets."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return "\n".join([head, *lines, ")"]) if lines else head + ")"


def attributes(module: Module) -> dict[str, Any]:
    """Return what a module consists of, by name: attributes, parts, hooks."""
    found = dict(module.__dict__)
    for registry in ("_parameters", "_buffers", "_modules"):
        found |= {f"{registry}.{name}": part for name, part in found.pop(registry).items()}
    return found | {f"_hooks.{i}": hook for i, hook in enumerate(found.pop("_hooks"))}


@contextmanager
def evaluating() -> Iterator[None]:
    """Evaluation mode without a tape in a ``with`` block: of all modules that run there, which themselves stay as they
    are, so that other threads may train them or predict with them meanwhile.
    """
    token = _evaluating.set(True)
    try:
        with no_grad():
            yield
    finally:
        _evaluating.reset(token)


def detached(model: Module) -> Module:
    """Return a copy of the modules for a look inside: in evaluation mode, with the same memory, which takes no gradient.

    What is hooked into the copy, or asked of its tensors, does not touch the model.
    """
    tensors = [*model.parameters(), *(buffer for _, buffer in model.named_buffers())]
    return copy.deepcopy(model, {id(tensor): tensor.detach() for tensor in tensors}).eval()
