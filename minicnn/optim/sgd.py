"""Stochastic gradient descent."""

from collections.abc import Iterable, Mapping
from typing import Any

from minicnn.optim.optimizer import Optimizer
from minicnn.recording import live
from minicnn.tensor import Tensor


class SGD(Optimizer):
    """SGD with momentum, dampening, weight decay and Nesterov's form (Sutskever et al., 2013), as ``torch.optim.SGD``.

    g += weight_decay w;  v = momentum v + (1 - dampening) g  (v = g at first);  w -= lr v, or lr (g + momentum v).
    """

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
            self._add_slots("velocity")

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name in ("momentum", "weight_decay"):
            self._check(name, options[name])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError("SGD: nesterov expects a momentum and no dampening")

    def _update(self, k: Any, index: int, parameter: Any, gradient: Any, group: dict[str, Any]) -> None:
        velocity = self._state["velocity"][index] if group["momentum"] else None
        k.sgd_step(
            parameter,
            gradient,
            velocity,
            live(lambda: self.steps == 1),
            live(lambda: group["lr"]),
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
        )
