"""What all optimizers share: parameters, their state by position, and saving it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from minicnn.recording import again
from minicnn.tensor import Tensor


class Optimizer:
    """Base class: a subclass names its state arrays and updates one parameter.

    Attributes:
        params: the parameters in order; state belongs to a position in it.
        lr: the learning rate of the next step, free to be assigned by a schedule.
        steps: how many steps were taken.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, slots: tuple[str, ...]) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError(f"{type(self).__name__}: expected parameters, received none")
        if not all(isinstance(p, Tensor) and p.is_leaf and p.dtype.kind == "f" for p in self.params):
            raise TypeError(f"{type(self).__name__}: expected float leaf tensors as parameters")
        if any(a is b for i, a in enumerate(self.params) for b in self.params[:i]):
            raise ValueError(f"{type(self).__name__}: a parameter appears twice")
        self._check("lr", lr)
        self.lr = lr
        self.steps = 0
        self._state = {slot: [p.backend.xp.zeros_like(p.data) for p in self.params] for slot in slots}

    def _check(self, name: str, value: float, below: float = math.inf) -> None:
        if not 0 <= value < below:
            raise ValueError(f"{type(self).__name__}: expected {name} in [0, {below}), received {value}")

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        again(lambda: self._count(1), undo=lambda: self._count(-1))
        for index, p in enumerate(self.params):
            if p.grad is not None:
                self._update(p.backend.kernels, index, p.data, p.grad.data)
                p._version.number += 1

    def _count(self, steps: int) -> None:
        self.steps += steps

    def _update(self, k: Any, index: int, parameter: Any, gradient: Any) -> None:
        """Call the step kernel for the parameter at ``index``."""
        raise TypeError(f"{type(self).__name__} defines no _update")

    def state_dict(self) -> dict[str, Any]:
        """Return {"steps": int, "lr": float, "<slot>.<position>": array, …}; the arrays are shared."""
        arrays = {f"{slot}.{i}": a for slot, arrays in self._state.items() for i, a in enumerate(arrays)}
        return {"steps": self.steps, "lr": self.lr, **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy what :meth:`state_dict` returned; ValueError if names or shapes differ, and nothing is copied then."""
        own = self.state_dict()
        if set(own) != set(state):
            raise ValueError(
                f"load_state_dict: {type(self).__name__} differs in {', '.join(sorted(set(own) ^ set(state)))}"
            )
        for name, array in own.items():
            if hasattr(array, "shape") and array.shape != state[name].shape:
                raise ValueError(f"load_state_dict: {name}: expected {array.shape}, received {state[name].shape}")
        self.steps, self.lr = int(state["steps"]), float(state["lr"])
        for slot, arrays in self._state.items():
            for i, (array, p) in enumerate(zip(arrays, self.params, strict=True)):
                p.backend.kernels.copy_into(array, p.backend.asarray(state[f"{slot}.{i}"]))
