"""Learning-rate schedules as functions: step (from 0) -> learning rate. All but ReduceOnPlateau are pure.

The caller decides what a step is: training counts optimizer steps. ``optimizer.lr = schedule(step)`` applies one.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Always ``lr``.

    Example:
        >>> optim.schedules.constant(0.5)(1000)
        0.5
    """
    return lambda step: lr


def step(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """lr gamma^(step // step_size).

    Example:
        >>> [optim.schedules.step(1.0, 2, gamma=0.5)(i) for i in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    _check_steps("step", step_size=step_size)
    return lambda step: lr * gamma ** (step // step_size)


def multi_step(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """lr gamma^(number of milestones reached).

    Example:
        >>> [optim.schedules.multi_step(1.0, [2, 3], gamma=0.5)(i) for i in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    return lambda step: lr * gamma ** sum(step >= milestone for milestone in milestones)


def cosine(lr: float, total_steps: int, eta_min: float = 0.0) -> Schedule:
    """From lr down to eta_min along half a cosine, and eta_min from then on (Loshchilov and Hutter, 2017).

    Example:
        >>> [round(optim.schedules.cosine(1.0, 4)(i), 2) for i in range(6)]
        [1.0, 0.85, 0.5, 0.15, 0.0, 0.0]
    """
    _check_steps("cosine", total_steps=total_steps)
    return lambda step: eta_min + (lr - eta_min) * (1 + math.cos(math.pi * min(step / total_steps, 1))) / 2


def one_cycle(
    max_lr: float, total_steps: int, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> Schedule:
    """From max_lr / div_factor up to max_lr in the first ``pct_start``, then down to 1 / final_div_factor of the start.

    Both ways along half a cosine (Smith and Topin, 2018), as ``torch.optim.lr_scheduler.OneCycleLR``.

    Example:
        >>> lr = optim.schedules.one_cycle(1.0, 11, pct_start=6 / 11, div_factor=4.0, final_div_factor=2.0)
        >>> [lr(0), lr(5), lr(10)]
        [0.25, 1.0, 0.125]
    """
    _check_steps("one_cycle", total_steps=total_steps)
    start, peak, last = max_lr / div_factor, pct_start * total_steps - 1, total_steps - 1
    end = start / final_div_factor

    def between(a: float, b: float, fraction: float) -> float:
        return b + (a - b) * (1 + math.cos(math.pi * min(max(fraction, 0.0), 1.0))) / 2

    def lr(step: int) -> float:
        if step <= peak:
            return between(start, max_lr, step / peak if peak > 0 else 1)
        return between(max_lr, end, (step - peak) / (last - peak) if last > peak else 1)

    return lr


def piecewise_linear(lr: float, total_steps: int, knots: Sequence[tuple[float, float]]) -> Schedule:
    """lr times a factor that is linear between knots: pairs of the share of the steps that is done, and a factor.

    Before the first knot and after the last the factor is theirs.

    Example:
        >>> lr = optim.schedules.piecewise_linear(1.0, 8, [(0, 0.5), (0.25, 1.0), (1, 0.25)])
        >>> [lr(step) for step in (0, 1, 2, 8, 9)]
        [0.5, 0.75, 1.0, 0.25, 0.25]
    """
    _check_steps("piecewise_linear", total_steps=total_steps)
    shares = [share for share, _ in knots]
    if not knots or shares != sorted(set(shares)):
        raise ValueError(f"piecewise_linear: expected knots with rising shares, received {list(knots)}")

    def schedule(step: int) -> float:
        done = step / total_steps
        for (start, before), (end, after) in pairwise(knots):
            if start <= done < end:
                return lr * (before + (after - before) * (done - start) / (end - start))
        return lr * knots[0 if done < shares[0] else -1][1]

    return schedule


def linear_warmup(after: Schedule, warmup_steps: int) -> Schedule:
    """Rise linearly to ``after(0)`` in ``warmup_steps``, then follow ``after`` from its start.

    Example:
        >>> [optim.schedules.linear_warmup(optim.schedules.constant(1.0), 3)(i) for i in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    _check_steps("linear_warmup", least=0, warmup_steps=warmup_steps)
    return lambda step: (
        after(0) * (step + 1) / (warmup_steps + 1) if step < warmup_steps else after(step - warmup_steps)
    )


class ReduceOnPlateau:
    """Multiply the rate by ``factor`` after more than ``patience`` epochs without a better metric.

    As ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with mode "min" and a relative threshold. Call :meth:`observe`
    after each epoch; as a schedule it returns the present rate, whatever the step.

    Example:
        >>> schedule = optim.schedules.ReduceOnPlateau(1.0, factor=0.5, patience=0)
        >>> for loss in (3.0, 2.0, 2.0):
        ...     schedule.observe(loss)
        >>> schedule(0)
        0.5
    """

    def __init__(
        self, lr: float, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, min_lr: float = 0.0
    ) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"ReduceOnPlateau: expected factor in (0, 1), received {factor}")
        self.lr, self.factor, self.patience, self.threshold, self.min_lr = lr, factor, patience, threshold, min_lr
        self.best, self.bad_epochs = math.inf, 0

    def __call__(self, step: int) -> float:
        """Return the present rate."""
        return self.lr

    def observe(self, metric: float) -> None:
        """Compare the metric of an epoch, where less is better, and lower the rate if it is time."""
        if metric < self.best * (1 - self.threshold):
            self.best, self.bad_epochs = metric, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.lr, self.bad_epochs = max(self.lr * self.factor, self.min_lr), 0

    def state_dict(self) -> dict[str, float]:
        """Return the rate, the epochs without a better metric and the best one (none before the first), for JSON."""
        state = {"lr": self.lr, "bad_epochs": self.bad_epochs}
        return state if math.isinf(self.best) else state | {"best": self.best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore a state that :meth:`state_dict` returned."""
        self.lr, self.bad_epochs, self.best = state["lr"], int(state["bad_epochs"]), state.get("best", math.inf)


def _check_steps(operation: str, least: int = 1, **steps: int) -> None:
    for name, value in steps.items():
        if value < least:
            raise ValueError(f"{operation}: expected {name} from {least}, received {value}")
