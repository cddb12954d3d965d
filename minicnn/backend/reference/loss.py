"""Softmax and cross-entropy in one step, so that large logits neither overflow nor lose the gradient."""

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel


@kernel(lambda logits, *_: [logits.shape[:1], logits.shape])
def cross_entropy(logits, labels, weight, label_smoothing):
    """Loss of each image: -sum_k q_k log p_k with p = softmax(logits), where 0 log 0 is 0.

    q_k = weight_k ((1 - s) t_k + s / K), label smoothing s (Szegedy et al., 2016); t is the target, for a label
    1 there and 0 elsewhere. logits: (N, K); labels: int64 (N,), or t itself as (N, K); weight: (K,) or None
    -> losses (N,), probabilities (N, K).
    """
    xp = namespace(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    target = _target(e, labels, weight, label_smoothing)
    losses = -(target * xp.where(target == 0, target, shifted - xp.log(total))).sum(axis=1)
    return losses, e / total


@kernel(lambda glosses, probabilities, *_: probabilities.shape)
def cross_entropy_grad(glosses, probabilities, labels, weight, label_smoothing):
    """Gradient for the logits: glosses (p sum(q) - q). glosses: (N,); probabilities: (N, K) -> (N, K)."""
    target = _target(probabilities, labels, weight, label_smoothing)
    return glosses[:, None] * (probabilities * target.sum(axis=1, keepdims=True) - target)


@kernel(lambda weight, labels: labels.shape)
def label_weights(weight, labels):
    """The weight of each label, which is known to be a class. weight: (K,); labels: int64 (N,) in [0, K) -> (N,)."""
    return weight[labels]


@kernel(number=True)
def label_range(labels):
    """Smallest and largest label as Python ints. labels: any integer array with at least one element."""
    return int(labels.min()), int(labels.max())


@kernel(writes="rows")
def note_step(rows, place, loss, norm, logits, labels):
    """Write what a step says of itself to a row: its loss, the norm of its gradient, and how many images it had right.

    An image is right where its largest logit is that of its label, or of its largest probability. rows: float64 (R, 3);
    place: of the row, from 0; loss: (); norm: float64 (), or None for 0; logits: (N, K); labels: int64 (N,) or (N, K).
    """
    truth = labels if labels.ndim == 1 else labels.argmax(axis=1)
    rows[place, 0], rows[place, 1] = loss, 0 if norm is None else norm
    rows[place, 2] = (logits.argmax(axis=1) == truth).sum()


def _target(like, labels, weight, label_smoothing):
    """q of :func:`cross_entropy`, (N, K)."""
    xp = namespace(like)
    n, classes = like.shape
    if labels.ndim == 2:
        target = labels * (1 - label_smoothing) + label_smoothing / classes
    else:
        target = xp.full((n, classes), label_smoothing / classes, dtype=like.dtype)
        target[xp.arange(n), labels] += 1 - label_smoothing
    return target if weight is None else target * weight
