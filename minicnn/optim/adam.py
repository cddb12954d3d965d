"""Adam and AdamW."""

from collections.abc import Iterable, Mapping
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
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self._add_slots("mean", "square")

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for position in (0, 1):
            self._check(f"betas[{position}]", options["betas"][position], below=1.0)
        for name in ("eps", "weight_decay"):
            self._check(name, options[name])

    def _update(self, k: Any, index: int, parameter: Any, gradient: Any, group: dict[str, Any]) -> None:
        k.adam_step(
            parameter,
            gradient,
            self._state["mean"][index],
            self._state["square"][index],
            live(lambda: self.steps),
            live(lambda: group["lr"]),
            *group["betas"],
            group["eps"],
            group["weight_decay"],
            self.decoupled,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, w -= lr weight_decay w (Loshchilov and Hutter, 2019): ``torch.optim.AdamW``."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
