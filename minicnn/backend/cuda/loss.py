"""Softmax and cross-entropy in one CUDA kernel, and what is said of a step."""

from minicnn.backend.cuda.launch import BLOCK, cupy, empty, launch
from minicnn.backend.cuda.live import live


def cross_entropy(logits, labels, weight, label_smoothing):
    rows, k = logits.shape
    losses, probabilities = empty((rows,), logits), empty(logits.shape, logits)
    scalars = (1.0 - label_smoothing, label_smoothing / k)
    operands = (logits, *_targets(labels), weight, *scalars)
    launch("cross_entropy", logits.dtype, 32 * rows, *operands, losses, probabilities, rows, k)
    return losses, probabilities


def cross_entropy_grad(glosses, probabilities, labels, weight, label_smoothing):
    rows, k = probabilities.shape
    gx = empty(probabilities.shape, probabilities)
    scalars = (1.0 - label_smoothing, label_smoothing / k)
    same = glosses.strides == (0,)
    operands = (glosses[:1] if same else glosses, 0 if same else 1, probabilities, *_targets(labels), weight, *scalars)
    launch("cross_entropy_grad", gx.dtype, 32 * rows, *operands, gx, rows, k)
    return gx


def _targets(labels):
    """Labels and None, or None and probabilities."""
    return (None, labels) if labels.ndim == 2 else (cupy.asarray(labels, dtype="int64"), None)


def label_range(labels):
    # One wait for the device instead of two.
    ends = cupy.empty(2, dtype="int64")
    launch("label_range", "float32", BLOCK, cupy.asarray(labels, dtype="int64"), ends, labels.size)
    lowest, highest = ends.get().tolist()
    return lowest, highest


@live(lambda rows, place, loss, norm, logits, labels: (place,))
def note_step(numbers, rows, place, loss, norm, logits, labels):
    (place,) = numbers
    places, written = (place, 0) if isinstance(place, cupy.ndarray) else (None, place), cupy.ascontiguousarray(rows)
    launch("note_step", logits.dtype, BLOCK, written, *places, loss, norm, logits, *_targets(labels), *logits.shape)
    if written is not rows:
        rows[...] = written
