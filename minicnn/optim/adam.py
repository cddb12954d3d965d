"""The optimizers Adam and AdamW."""

from collections.abc import Iterable, Mapping
from typing import Any

from minicnn.optim.optimizer import Moved, Optimizer, option
from minicnn.recording import per_replay
from minicnn.tensor import Tensor


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), as ``torch.optim.Adam``.

    g += weight_decay w;  m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) g^2;
    w -= lr m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps), where t counts the steps in which w had a gradient.

    Example:
        >>> w = tensor([1.0], requires_grad=True)
        >>> w.grad = tensor([8.0])
        >>> optim.Adam([w], lr=0.5, eps=0.0).step()  # the first step is lr times the sign of the gradient
        >>> w
        tensor([0.5], dtype=float32, requires_grad=True)
    """

    _slots = ("mean", "square")
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
        for slot in self._slots:
            self._slot(slot)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        betas = options["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{self._name}: expected betas as two numbers, received {betas!r}")
        for position in (0, 1):
            self._check(f"betas[{position}]", betas[position], below=1.0)
        for name in ("eps", "weight_decay"):
            self._check(name, options[name])

    def _update(self, group: dict[str, Any], moved: list[Moved]) -> None:
        self._count(moved)
        lr, eps, weight_decay = (option(group, name) for name in ("lr", "eps", "weight_decay"))
        beta1, beta2 = per_replay(lambda: group["betas"][0]), per_replay(lambda: group["betas"][1])
        mean, square = (self._slot(slot) for slot in self._slots)
        for i, p, gradient in moved:
            k, step = p.backend.kernels, self._steps_of(i)
            k.adam_step(
                p._operand,
                gradient._operand,
                mean[i],
                square[i],
                step,
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
                self.decoupled,
            )

    def _steps_of(self, index: int) -> Any:
        """Return the number of steps that the parameter has taken, this one included, read anew by every replay."""
        return per_replay(lambda: int(self._counts[index]))


class AdamW(Adam):
    """Adam with decoupled weight decay, w -= lr weight_decay w (Loshchilov and Hutter, 2019): ``torch.optim.AdamW``.

    Example:
        >>> w = tensor([8.0], requires_grad=True)
        >>> w.grad = tensor([0.0])
        >>> optim.AdamW([w], lr=0.5, weight_decay=0.5).step()
        >>> w
        tensor([6.], dtype=float32, requires_grad=True)
    """

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
