"""The optimizer SGD."""

from collections.abc import Iterable, Mapping
from typing import Any

from minicnn.optim.optimizer import Moved, Optimizer, option
from minicnn.recording import on_replay, per_replay
from minicnn.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al., 2013), as ``torch.optim.SGD``.

    g += weight_decay w;  v = momentum v + (1 - dampening) g;  w -= lr v, or with ``nesterov`` lr (g + momentum v).
    In the first step in which w has a gradient and a momentum, v = g.

    Example:
        >>> w = tensor([1.0], requires_grad=True)
        >>> optimizer = optim.SGD([w], lr=0.5, momentum=0.5)
        >>> for _ in range(2):
        ...     w.grad = tensor([1.0])
        ...     optimizer.step()
        >>> w
        tensor([-0.25], dtype=float32, requires_grad=True)
    """

    _slots = ("velocity",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )
        if any(group["momentum"] for group in self.param_groups):
            self._slot("velocity")

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name in ("momentum", "weight_decay"):
            self._check(name, options[name])
        self._check_number("dampening", options["dampening"])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            received = f"momentum {options['momentum']} and dampening {options['dampening']}"
            raise ValueError(f"SGD: expected a momentum and no dampening with nesterov, received {received}")

    def _update(self, group: dict[str, Any], moved: list[Moved]) -> None:
        form = _form(group)
        has_velocity, nesterov = form

        def check() -> None:
            if _form(group) != form:
                raise RuntimeError(
                    "SGD: a plan has its form of momentum (none, momentum or nesterov) from its recording; "
                    "compile the function anew"
                )

        on_replay(check)
        velocity = [None] * len(self.params)
        if has_velocity:
            self._count(moved)
            velocity = self._slot("velocity")
        lr, momentum, dampening, weight_decay = (
            option(group, name) for name in ("lr", "momentum", "dampening", "weight_decay")
        )
        for i, p, gradient in moved:
            k, first = p.backend.kernels, has_velocity and self._is_first(i)
            k.sgd_step(
                p._operand, gradient._operand, velocity[i], first, lr, momentum, dampening, weight_decay, nesterov
            )

    def _is_first(self, index: int) -> Any:
        """Return whether the parameter takes its first step with a momentum, read anew by every replay."""
        return per_replay(lambda: bool(self._counts[index] == 1))


def _form(group: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a group has a velocity, and whether it takes Nesterov's form."""
    return bool(group["momentum"]), bool(group["nesterov"])
