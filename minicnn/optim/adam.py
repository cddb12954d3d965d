"""Adam and AdamW."""

from collections.abc import Iterable
from typing import Any

from minicnn.optim.optimizer import Optimizer
from minicnn.recording import live
from minicnn.tensor import Tensor


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), as ``torch.optim.Adam``; ``weight_decay`` adds weight_decay w to the gradient.

    m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) g^2;  w -= lr m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps).
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, ("mean", "square"))
        for name, value in (("betas[0]", betas[0]), ("betas[1]", betas[1])):
            self._check(name, value, below=1.0)
        for name, value in (("eps", eps), ("weight_decay", weight_decay)):
            self._check(name, value)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def _update(self, k: Any, index: int, parameter: Any, gradient: Any) -> None:
        k.adam_step(
            parameter,
            gradient,
            self._state["mean"][index],
            self._state["square"][index],
            live(lambda: self.steps),
            live(lambda: self.lr),
            *self.betas,
            self.eps,
            self.weight_decay,
            self.decoupled,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, w -= lr weight_decay w (Loshchilov and Hutter, 2019): ``torch.optim.AdamW``."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
