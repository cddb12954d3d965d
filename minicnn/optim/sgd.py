"""Stochastic gradient descent."""

from collections.abc import Iterable
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
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, ("velocity",) if momentum else ())
        for name, value in (("momentum", momentum), ("weight_decay", weight_decay)):
            self._check(name, value)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError("SGD: nesterov expects a momentum and no dampening")
        self.momentum, self.dampening, self.weight_decay, self.nesterov = momentum, dampening, weight_decay, nesterov

    def _update(self, k: Any, index: int, parameter: Any, gradient: Any) -> None:
        velocity = self._state["velocity"][index] if self.momentum else None
        k.sgd_step(
            parameter,
            gradient,
            velocity,
            live(lambda: self.steps == 1),
            live(lambda: self.lr),
            self.momentum,
            self.dampening,
            self.weight_decay,
            self.nesterov,
        )
