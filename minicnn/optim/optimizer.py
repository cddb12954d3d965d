"""What all optimizers share: groups of parameters, their state by position, and saving it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from minicnn.recording import again
from minicnn.tensor import Tensor


class Optimizer:
    """Base class: a subclass names its options and state arrays, checks the options and updates one parameter.

    ``params`` is tensors, or groups as in ``torch.optim``: mappings with "params" and the options that differ there.

    Attributes:
        param_groups: one dictionary a group: "params", and every option.
        params: the parameters of all groups in order; state belongs to a position in it.
        lr: the learning rate of the next step, free to be assigned by a schedule. A group that was given its own keeps
            its ratio to this one.
        steps: how many steps were taken.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], **defaults: Any) -> None:
        given: list[Any] = list(params)
        groups = given if given and all(isinstance(g, Mapping) for g in given) else [{"params": given}]
        for group in groups:
            if "params" not in group or set(group) - {"params", *defaults}:
                raise ValueError(
                    f"{self._name}: expected groups of params and of {', '.join(defaults)}, "
                    f"received one of {', '.join(map(str, group))}"
                )
        self.param_groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        self.params: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        if not self.params:
            raise ValueError(f"{self._name}: expected parameters, received none")
        if not all(isinstance(p, Tensor) and p.is_leaf and p.dtype.kind == "f" for p in self.params):
            raise TypeError(f"{self._name}: expected float leaf tensors as parameters")
        if any(a is b for i, a in enumerate(self.params) for b in self.params[:i]):
            raise ValueError(f"{self._name}: a parameter appears twice")
        for options in (defaults, *self.param_groups):
            self._check("lr", options["lr"])
            self._check_options(options)
        self._lr = defaults["lr"]
        if not self._lr and any(group["lr"] for group in self.param_groups):
            raise ValueError(f"{self._name}: expected lr above 0 where a group has one of its own, received 0")
        self._ratios = [group["lr"] / self._lr if self._lr else 1.0 for group in self.param_groups]
        self.steps = 0
        self._state: dict[str, list[Any]] = {}

    def _add_slots(self, *slots: str) -> None:
        """Give every parameter a state array of zeros under each of these names."""
        self._state |= {slot: [p.backend.xp.zeros_like(p.data) for p in self.params] for slot in slots}

    @property
    def lr(self) -> float:
        """The learning rate of the groups that were given none of their own."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = value
        for group, ratio in zip(self.param_groups, self._ratios, strict=True):
            group["lr"] = value * ratio

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check(self, name: str, value: float, below: float = math.inf) -> None:
        if not 0 <= value < below:
            raise ValueError(f"{self._name}: expected {name} in [0, {below}), received {value}")

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError for options of a group, but for "lr", that are out of range."""
        raise TypeError(f"{self._name} defines no _check_options")

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        again(lambda: self._count(1), undo=lambda: self._count(-1))
        index = 0
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p.backend.kernels, index, p.data, p.grad.data, group)
                    p._version.number += 1
                index += 1

    def _count(self, steps: int) -> None:
        self.steps += steps

    def _update(self, k: Any, index: int, parameter: Any, gradient: Any, group: dict[str, Any]) -> None:
        """Call the step kernel for the parameter at ``index``, with the options of its group."""
        raise TypeError(f"{self._name} defines no _update")

    def state_dict(self) -> dict[str, Any]:
        """Return {"steps": int, "lr": float, "<slot>.<position>": array, …}; the arrays are shared."""
        arrays = {f"{slot}.{i}": a for slot, arrays in self._state.items() for i, a in enumerate(arrays)}
        return {"steps": self.steps, "lr": self.lr, **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy what :meth:`state_dict` returned; ValueError if names or shapes differ, and nothing is copied then."""
        own = self.state_dict()
        if set(own) != set(state):
            raise ValueError(f"load_state_dict: {self._name} differs in {', '.join(sorted(set(own) ^ set(state)))}")
        for name, array in own.items():
            if hasattr(array, "shape") and array.shape != state[name].shape:
                raise ValueError(f"load_state_dict: {name}: expected {array.shape}, received {state[name].shape}")
        self.steps, self.lr = int(state["steps"]), float(state["lr"])
        for slot, arrays in self._state.items():
            for i, (array, p) in enumerate(zip(arrays, self.params, strict=True)):
                p.backend.kernels.copy_into(array, p.backend.asarray(state[f"{slot}.{i}"]))
