"""The learning-rate range test."""

import itertools
import math

import numpy as np

from minicnn.training.divergence import TrainingError
from minicnn.training.trainer import Trainer

LOWEST, HIGHEST = 1e-6, 10.0
_SMOOTHING, _WORSE = 0.9, 4.0


@np.errstate(over="ignore", invalid="ignore")
def learning_rate_test(trainer: Trainer, steps: int = 200) -> tuple[list[float], list[float]]:
    """Train with a rate that rises by the same factor from 1e-6 to 10 (Smith, 2017); -> rates and losses, one a step.

    Stops early where the smoothed loss is 4 times its minimum, or something is not finite. The weights of ``trainer``
    are spoilt. A step is that of one batch: the gradients of several are not added up.

    Raises:
        TrainingError: the first loss is not finite.
    """
    rates = np.geomspace(LOWEST, HIGHEST, steps).tolist()
    trainer.schedule = lambda step: rates[step]
    losses: list[float] = []
    batches = itertools.chain.from_iterable(trainer.batches(epoch) for epoch in itertools.count())
    trainer.prepare()
    for step, (images, labels) in enumerate(itertools.islice(batches, steps)):
        try:
            loss, _ = trainer.learn(*divmod(step, trainer.batches_per_epoch), images, labels)
        except TrainingError:
            if not losses:
                raise
            break
        losses.append(loss)
        smooth = smoothed(losses)
        if smooth[-1] > _WORSE * min(smooth):
            break
    return rates[: len(losses)], losses


def smoothed(losses: list[float]) -> list[float]:
    """The exponential mean of the losses so far, of weight 0.9, corrected for its start (Kingma and Ba, 2015)."""
    mean, result = 0.0, []
    for step, loss in enumerate(losses):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        result.append(mean / (1 - _SMOOTHING ** (step + 1)))
    return result


def suggestion(rates: list[float], losses: list[float]) -> float:
    """Return the rate at which the smoothed loss falls most steeply over the logarithm of the rate, before its minimum.

    Raises:
        ValueError: fewer than three losses.
    """
    if len(losses) < 3:
        raise ValueError(f"suggestion: expected three losses or more, received {len(losses)}")
    smooth = smoothed(losses)
    slopes = np.gradient(smooth, [math.log(rate) for rate in rates])
    return rates[int(slopes[: int(np.argmin(smooth)) + 1].argmin())]
