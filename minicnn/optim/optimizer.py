"""What all optimizers share: groups of parameters, state arrays for each, checks, saving and loading."""

import math
import sys
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from minicnn import shapes
from minicnn.recording import Recorded, check_readable, current, on_replay, per_replay
from minicnn.tensor import Tensor

Moved = tuple[int, Tensor, Tensor]
"""A parameter that has a gradient: its position, itself, the gradient."""


class Group(dict[str, Any]):
    """Parameters and their options. A compiled function reads the options in every replay, and cannot set them."""

    def __setitem__(self, name: str, value: Any) -> None:
        check_readable(f"setting {name} of an optimizer", "set it outside: replays read it")
        super().__setitem__(name, value)


class Optimizer:
    """Base class: a subclass names its options and state arrays, checks the options and updates a group.

    Args:
        params: tensors, or groups as in ``torch.optim``: mappings with "params" and the options that differ there.
        defaults: the options of groups that do not give their own.

    Attributes:
        param_groups: one dictionary a group: "params", and every option, free to be assigned.
        params: the parameters of all groups in order; state belongs to a position in it.
        lr: the learning rate of the next step, free to be assigned by a schedule. The ratio of each group's rate to it
            is fixed when the optimizer is made, whatever the group's rate is set to in between.
        steps: the number of steps taken. Each parameter counts those in which it had a gradient.

    Raises:
        TypeError: parameters that are no tensors of floats, or in no order.
        ValueError: no parameter, one twice, one that an operation made, an unknown option or one out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.25}]
        >>> optimizer = optim.SGD(groups, lr=1.0)
        >>> optimizer.lr = 0.5
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.5, 0.125]
    """

    _slots: tuple[str, ...] = ()
    """Names of the state arrays."""

    def __init__(self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], **defaults: Any) -> None:
        given: list[Any] = self._listed(params)
        groups = given if given and all(isinstance(g, Mapping) for g in given) else [{"params": given}]
        for group in groups:
            if "params" not in group or set(group) - {"params", *defaults}:
                raise ValueError(
                    f"{self._name}: expected groups of params and of {', '.join(defaults)}, "
                    f"received one of {', '.join(map(str, group))}"
                )
        self.param_groups = [Group({**defaults, **g, "params": self._listed(g["params"], alone=True)}) for g in groups]
        self.params: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        if not self.params:
            raise ValueError(f"{self._name}: expected parameters, received none")
        for p in self.params:
            if not isinstance(p, Tensor) or p.dtype.kind != "f":
                kind = f"one of {p.dtype}" if isinstance(p, Tensor) else type(p).__name__
                raise TypeError(f"{self._name}: expected float tensors as parameters, received {kind}")
            if not p.is_leaf:
                raise ValueError(f"{self._name}: expected leaf tensors, received one that an operation made")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError(f"{self._name}: expected each parameter once, received one twice")
        for options in (defaults, *self.param_groups):
            self._check("lr", options["lr"])
            self._check_options(options)
        self._lr = defaults["lr"]
        if not self._lr and any(group["lr"] for group in self.param_groups):
            raise ValueError(f"{self._name}: expected lr above 0 where a group has one of its own, received 0")
        self._ratios = [group["lr"] / self._lr if self._lr else 1.0 for group in self.param_groups]
        self.steps = 0
        self._counts = np.zeros(len(self.params), dtype=np.int64)  # steps of each parameter
        self._state: dict[str, list[Any]] = {}

    def _listed(self, params: Any, alone: bool = False) -> list[Any]:
        """Return ``params`` as a list; a single tensor is allowed where ``alone``."""
        if isinstance(params, Tensor) and alone:
            return [params]
        if isinstance(params, Tensor | set | frozenset) or not isinstance(params, Iterable):
            raise TypeError(f"{self._name}: expected a list of tensors or groups, received {type(params).__name__}")
        return list(params)

    def _slot(self, name: str) -> list[Any]:
        """Return the state arrays of a name, one a parameter; they start as zeros."""
        if name not in self._state:
            self._state[name] = [p.backend.xp.zeros_like(p._data) for p in self.params]
        return self._state[name]

    @property
    def lr(self) -> float:
        """The learning rate of the groups that were given none of their own."""
        rates = (group["lr"] for group, ratio in zip(self.param_groups, self._ratios, strict=True) if ratio == 1)
        return next(rates, self._lr)

    @lr.setter
    def lr(self, value: float) -> None:
        check_readable("setting lr of an optimizer", "set it outside: replays read it")
        self._lr = value
        for group, ratio in zip(self.param_groups, self._ratios, strict=True):
            group["lr"] = value * ratio

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_number(self, name: str, value: Any) -> None:
        if not isinstance(value, Real):
            raise TypeError(f"{self._name}: expected {name} as a number, received {type(value).__name__}")

    def _check(self, name: str, value: Any, below: float = math.inf) -> None:
        self._check_number(name, value)
        if not 0 <= value < below or value > sys.float_info.max:
            raise ValueError(f"{self._name}: expected {name} in [0, {below}), received {value}")

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise for options of a group, other than "lr", that are of another type or out of range."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        moved = [(i, p, p.grad) for i, p in enumerate(self.params) if p.grad is not None]
        for i, p, gradient in moved:  # an array may have been replaced since
            if isinstance(gradient._data, Recorded) and current.get() is None:
                gradient._data.refuse("a step by this gradient")
            shapes.check_same(f"{self._name}: the gradient of parameter {i}", p, gradient)
            for slot, arrays in self._state.items():
                shapes.check_same(f"{self._name}: the {slot} of parameter {i}, made before its data", p, arrays[i])
        on_replay(lambda: self._advance(1), undo=lambda: self._advance(-1))
        first = 0
        for group in self.param_groups:
            members = range(first, first + len(group["params"]))
            self._update(group, [taken for taken in moved if taken[0] in members])
            first = members.stop
        for _, p, _ in moved:
            p._version.edited()

    def _advance(self, steps: int) -> None:
        self.steps += steps

    def _update(self, group: dict[str, Any], moved: list[Moved]) -> None:
        """Call the step kernel for these parameters of a group, with its options."""
        raise NotImplementedError

    def _count(self, moved: list[Moved]) -> None:
        """Count a step of these parameters, now and in every replay."""
        indices = np.array([i for i, _, _ in moved], dtype=np.int64)

        def add(steps: int) -> None:
            self._counts[indices] += steps

        on_replay(lambda: add(1), undo=lambda: add(-1))

    def state_dict(self) -> dict[str, Any]:
        """Return numbers, tuples of them and arrays by name; the arrays are shared.

        The names are "steps", "lr" and "counts" (int64, the steps of each parameter); for each group
        "group.<i>.<option>", "group.<i>.size" and "group.<i>.ratio" (to ``lr``); for each state array
        "<slot>.<position>".

        Example:
            >>> optim.Adam([tensor([1.0], requires_grad=True)]).state_dict()["group.0.betas"]
            (0.9, 0.999)
        """
        state: dict[str, Any] = {"steps": self.steps, "lr": self._lr, "counts": self._counts}
        for i, (group, ratio) in enumerate(zip(self.param_groups, self._ratios, strict=True)):
            options = {name: value for name, value in group.items() if name != "params"}
            options |= {"size": len(group["params"]), "ratio": ratio}
            state |= {f"group.{i}.{name}": value for name, value in options.items()}
        return state | {f"{slot}.{i}": a for slot, arrays in self._state.items() for i, a in enumerate(arrays)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a state that :meth:`state_dict` returned; lists may stand for tuples.

        Raises:
            ValueError: names, groups or shapes differ, or values are out of range; nothing is changed then.
            TypeError: values of another type; nothing is changed then.
        """
        groups, arrays = self._checked(state)
        self.steps, self._lr = int(state["steps"]), float(state["lr"])
        for i, (group, options) in enumerate(zip(self.param_groups, groups, strict=True)):
            group.update(options)
            self._ratios[i] = float(state[f"group.{i}.ratio"])
        self._counts[...] = state["counts"]
        for slot, i in arrays:
            owner = self.params[i].backend
            owner.kernels.copy_into(self._slot(slot)[i], owner.asarray(state[f"{slot}.{i}"]))

    def _checked(self, state: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, int]]]:
        """Return the options of each group in ``state``, and slot and position of each state array; or raise."""
        sizes = [len(group["params"]) for group in self.param_groups]
        theirs = [state[name] for name in (f"group.{i}.size" for i in range(len(state))) if name in state]
        if theirs and theirs != sizes:
            raise ValueError(
                f"load_state_dict: {self._name}: expected groups of {sizes} parameters, received {theirs}; "
                "make the optimizer with the groups that it was saved with"
            )
        own = self.state_dict()
        slots = [slot for slot in self._slots if slot in self._state or f"{slot}.0" in state]
        arrays = [(slot, i) for slot in slots for i in range(len(self.params))]
        differing = sorted({*own, *(f"{slot}.{i}" for slot, i in arrays)} ^ set(state))
        if differing:
            more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
            raise ValueError(f"load_state_dict: {self._name} differs in {', '.join(differing[:8])}{more}")
        shapes = {"counts": self._counts.shape} | {f"{slot}.{i}": self.params[i].shape for slot, i in arrays}
        for name, shape in shapes.items():
            if np.shape(state[name]) != shape:
                raise ValueError(f"load_state_dict: {name}: expected {shape}, received {np.shape(state[name])}")
        counts = np.asarray(state["counts"])
        if counts.dtype.kind not in "iu" or counts.min() < 0:
            raise ValueError(f"load_state_dict: counts: expected integers from 0, received {counts.dtype}")
        groups = []
        for i, group in enumerate(self.param_groups):
            options = {option: state[f"group.{i}.{option}"] for option in group if option != "params"}
            groups.append({name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})
            self._check("lr", options["lr"])
            self._check_options(groups[-1])
        for name in ("steps", "lr", *(f"group.{i}.ratio" for i in range(len(groups)))):
            self._check(name, state[name])
        return groups, arrays


def option(group: Mapping[str, Any], name: str) -> Any:
    """Return an option of a group, read anew by every replay."""
    return per_replay(lambda: group[name])
