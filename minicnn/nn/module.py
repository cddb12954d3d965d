"""Module: a tree of layers with named parameters and buffers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from inspect import isfunction
from typing import Any

from minicnn import backend
from minicnn.autograd import no_grad
from minicnn.backend import Backend
from minicnn.recording import current
from minicnn.tensor import Tensor
from minicnn.text import html_table

_evaluating: ContextVar[bool] = ContextVar("evaluating", default=False)


class _Structure:
    """The number of the last change to an attribute of any module: what was derived before may no longer hold."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.number = 0

    def change(self) -> None:
        """Count a change."""
        self.number = next(self._numbers)


structure = _Structure()


class Parameter(Tensor):
    """A tensor that a module trains. Made from another tensor, it shares its memory but not its tape.

    Example:
        >>> nn.Parameter(tensor([1.0, 2.0]))
        tensor([1., 2.], dtype=float32, requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)


class Module:
    """Base class of layers and models.

    A subclass makes its parts in ``__init__`` and computes in ``forward``. A :class:`Parameter` or a Module that is
    assigned to an attribute is registered. Layers that behave differently in training (dropout, batch norm) ask
    ``training``. Predictions change no module: inside :func:`evaluating`, ``training`` is False for this thread alone.

    Raises:
        TypeError: a registered parameter, buffer or module is replaced by something else than another of its kind, a
            Parameter, None or, for a buffer, a Module.
        KeyError: a name with a dot, or one that the class uses for something else.

    Example:
        >>> class Double(nn.Module):
        ...     def forward(self, input):
        ...         return input * 2
        >>> Double()(tensor([1, 2]))
        tensor([2, 4], dtype=int64)
    """

    _untracked: frozenset[str] = frozenset()
    """Names in the state of PyTorch's layer of this kind that this one does not need."""

    def __init__(self) -> None:
        self.training = True
        self._parameters: dict[str, Parameter | None] = {}
        self._buffers: dict[str, Tensor | None] = {}
        self._modules: dict[str, Module | None] = {}
        self._hooks: list[Callable[[Module, Tensor], None]] = []

    def __getattribute__(self, name: str) -> Any:
        recorder = current.get()
        if recorder is not None:  # a layer need not be called to be used: its weight may be read, or its mode
            recorder.relies_on(self)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        before = next((home for home in _KINDS if name in self.__dict__.get(home, ())), None)
        if isinstance(value, Parameter):
            self._register("_parameters", name, value)
        elif isinstance(value, Module) and before != "_parameters":
            self._register("_modules", name, value)
        elif before is not None:
            self._register(before, name, value)
        else:
            super().__setattr__(name, value)
            structure.change()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        for home in _KINDS:
            self.__dict__.get(home, {}).pop(name, None)
        structure.change()

    @property
    def training(self) -> bool:
        """Whether the module is in training: set by :meth:`train` and :meth:`eval`, False inside :func:`evaluating`."""
        return self._training and not _evaluating.get()

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter under this name; None keeps the name for one."""
        self._register("_parameters", name, param, new=True)

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Register a tensor that is saved and moved, but not trained, under this name; None keeps the name for one."""
        self._register("_buffers", name, tensor, new=True)

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a module under this name; None keeps the name for one."""
        self._register("_modules", name, module, new=True)

    def _register(self, home: str, name: str, value: Any, new: bool = False) -> None:
        """Keep ``value`` in one registry and in no other; a ``new`` name must not be that of another attribute."""
        owner, kind = type(self).__name__, _KINDS[home]
        if home not in self.__dict__:
            raise AttributeError(f"{owner}: call super().__init__() before assigning {name}")
        if value is not None and not isinstance(value, kind):
            remedy = "; wrap it in one, or copy_ it into that under no_grad()" if isinstance(value, Tensor) else ""
            raise TypeError(f"{owner}.{name}: expected a {kind.__name__} or None, received {described(value)}{remedy}")
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"{owner}: expected a name without dots, received {name!r}")
        if hasattr(type(self), name) or (new and name in self.__dict__ and name not in self.__dict__[home]):
            raise KeyError(f"{owner}: expected a free name, received {name}, which is another attribute already")
        for registry in _KINDS:
            if registry != home:
                self.__dict__[registry].pop(name, None)
        self.__dict__[home][name] = value
        super().__setattr__(name, value)
        structure.change()

    def register_forward_hook(self, hook: Callable[[Module, Tensor], None]) -> Callable[[], None]:
        """Call ``hook(module, output)`` after every forward, until the returned function is called.

        Example:
            >>> layer = nn.ReLU()
            >>> remove = layer.register_forward_hook(lambda module, output: print(module, output.shape))
            >>> _ = layer(tensor([1.0, 2.0]))
            ReLU() (2,)
            >>> remove()
        """
        self._hooks.append(hook)
        structure.change()

        def remove() -> None:
            self._hooks.remove(hook)
            structure.change()

        return remove

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the output. Every subclass that is called defines it."""
        raise TypeError(f"{type(self).__name__}: expected a class that defines forward, received one that does not")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        recorder = current.get()
        with nullcontext() if recorder is None else recorder.inside(self):
            output = self.forward(*inputs, **options)
        for hook in self._hooks:
            hook(self, output)
        return output

    # The tree

    def children(self) -> Iterator[Module]:
        """Yield the modules directly below."""
        return (module for module in self._modules.values() if module is not None)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module), self first, in the order of registration."""
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """Yield self and all modules below."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter); a shared one only once."""
        seen: set[int] = set()  # by identity, as == compares elements
        for name, parameter in self._named("_parameters"):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield all parameters in order."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer)."""
        return self._named("_buffers")

    def _named(self, home: str) -> Iterator[tuple[str, Any]]:
        """Yield (dotted name, value) of one registry of self and all modules below."""
        for prefix, module in self.named_modules():
            for name, value in module.__dict__[home].items():
                if value is not None:
                    yield (f"{prefix}.{name}" if prefix else name), value

    # State

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters, then buffers, by dotted name; they share memory with the module.

        Example:
            >>> {name: value.shape for name, value in nn.Linear(3, 2).state_dict().items()}
            {'weight': (2, 3), 'bias': (2,)}
        """
        state = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return state | {name: buffer.detach() for name, buffer in self.named_buffers()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy tensors or arrays of the same names into the module.

        Names that PyTorch's layers have and these do not need (``num_batches_tracked`` of batch norm) are ignored.

        Args:
            state: values by dotted name.
            strict: whether the names must be those of the module.

        Raises:
            ValueError: names or shapes differ; nothing is copied then.
        """
        own = self.state_dict()
        untracked = {f"{p}.{name}" if p else name for p, module in self.named_modules() for name in module._untracked}
        state = {name: value for name, value in state.items() if name in own or name not in untracked}
        shapes = {n: tuple(value.shape) if hasattr(value, "shape") else described(value) for n, value in state.items()}
        problems = []
        if strict:
            problems += [f"missing {name} {own[name].shape}" for name in own if name not in state]
            problems += [f"unexpected {name} {shapes[name]}" for name in state if name not in own]
        for name in own:
            if name in state and own[name].shape != shapes[name]:
                problems.append(f"{name}: expected {own[name].shape}, received {shapes[name]}")
        if problems:
            raise ValueError(f"load_state_dict: {type(self).__name__} differs: " + "; ".join(problems))
        for name, tensor in own.items():
            if name in state:
                source = state[name]._operand if isinstance(state[name], Tensor) else state[name]
                owner = backend.of(tensor._operand)
                tensor._edit(owner.kernels.copy_into, owner.asarray(source))

    def zero_grad(self) -> None:
        """Set all gradients to None."""
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
        """Move parameters and buffers to a backend in place, without their gradients, and return self."""
        for tensor in tensors_of(self):
            tensor._data = tensor.to(target)._data
            tensor.grad = None
        return self

    def astype(self, dtype: Any) -> Module:
        """Turn floats among parameters and buffers into float32 or float64 in place, and return self."""
        if backend.default().xp.dtype(dtype) not in ("float32", "float64"):
            raise TypeError(f"astype: expected float32 or float64, received {dtype}")
        for tensor in tensors_of(self):
            if tensor.dtype.kind == "f":
                tensor._data = tensor._data.astype(dtype)
                tensor.grad = None
        return self

    def extra_repr(self) -> str:
        """Return the options to print between the brackets."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return "\n".join([head, *lines, ")"]) if lines else head + ")"

    def _repr_html_(self) -> str:
        """Answer a notebook: the tree, of each module the shapes of its own parameters and the number of all below."""
        rows = []
        for name, module in self.named_modules():
            *above, last = name.split(".")
            parameters = {key: p for key, p in module._parameters.items() if p is not None}
            own = ", ".join(f"{key} {p.shape}{'' if p.requires_grad else ' frozen'}" for key, p in parameters.items())
            kind = f"{type(module).__name__}({module.extra_repr()})"
            number = sum(p.numel() for p in module.parameters())
            rows.append(("  " * (len(above) + bool(name)) + last, kind, own, f"{number:,}"))
        frozen = sum(p.numel() for p in self.parameters() if not p.requires_grad)
        caption = f"{type(self).__name__}: {rows[0][-1]} parameters" + (
            f", {frozen:,} of them frozen" if frozen else ""
        )
        return html_table(caption, ("name", "module", "own parameters", "number"), rows, (3,))


_KINDS: dict[str, type] = {"_parameters": Parameter, "_buffers": Tensor, "_modules": Module}
"""The registries of a module, and the class of their values."""


def tensors_of(module: Module) -> list[Tensor]:
    """Return all parameters and buffers."""
    return [*module.parameters(), *(buffer for _, buffer in module.named_buffers())]


def described(value: Any) -> str:
    """Return how an error names a value that is no module or tensor, with how it becomes a module, if it can."""
    if isinstance(value, type):
        return f"the class {value.__name__}" + (f"; write {value.__name__}()" if issubclass(value, Module) else "")
    return f"the function {value.__name__}; write a layer" if isfunction(value) else type(value).__name__


def attributes(module: Module) -> dict[str, Any]:
    """Return all that a module consists of, by name: attributes, parts, hooks."""
    found = dict(module.__dict__)
    for registry in _KINDS:
        found |= {f"{registry}.{name}": part for name, part in found.pop(registry).items()}
    return found | {f"_hooks.{i}": hook for i, hook in enumerate(found.pop("_hooks"))}


def is_evaluating() -> bool:
    """Return whether all modules are in evaluation mode in this context, whatever their own mode."""
    return _evaluating.get()


@contextmanager
def evaluating() -> Iterator[None]:
    """Evaluate all modules that run in a ``with`` block, without a tape.

    The modules stay as they are: other threads may train them or predict with them meanwhile.
    """
    token = _evaluating.set(True)
    try:
        with no_grad():
            yield
    finally:
        _evaluating.reset(token)


def detached(model: Module) -> Module:
    """Return a copy of the modules for a look inside: in evaluation mode, with the same memory, without gradients.

    Hooks of the copy and changes to its tensors' gradients do not touch the model.
    """
    return copy.deepcopy(model, {id(tensor): tensor.detach() for tensor in tensors_of(model)}).eval()
