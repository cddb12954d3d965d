"""Figures of a classifier on a labelled set, as plain numbers and lists that JSON can hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def classification_report(
    labels: ArrayLike, predictions: ArrayLike, classes: Sequence[str], probabilities: ArrayLike | None = None
) -> dict[str, Any]:
    """Accuracy, macro and per-class precision, recall and F1, and the confusion matrix.

    labels, predictions: (N,) integers in 0 … len(classes) - 1. probabilities: (N, len(classes)), adds the mean
    cross-entropy in nats as "loss". confusion_matrix[i][j] counts the images of class i predicted as class j.
    A ratio with denominator 0 is 0: the precision of a class never predicted, the recall of a class that never occurs.
    The macro figures are unweighted means over all classes, those without an image included.
    Raises ValueError for empty or mismatched input, TypeError for labels that are not integers.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not labels.size:
        raise ValueError(
            "classification_report: expected labels and predictions of the same shape (N,), N > 0, "
            f"received {labels.shape} and {predictions.shape}"
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.dtype.kind not in "iu":
            raise TypeError(f"classification_report: expected integer {name}, received {values.dtype}")
        if values.min() < 0 or values.max() >= len(classes):
            raise ValueError(
                f"classification_report: expected {name} from 0 to {len(classes) - 1}, "
                f"received {values.min()} to {values.max()}"
            )
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    indices = range(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=indices, zero_division=0
    )
    report: dict[str, Any] = {"images": int(labels.size), "accuracy": float(accuracy_score(labels, predictions))}
    if probabilities is not None:
        report["loss"] = _loss(labels, np.asarray(probabilities, np.float64), len(classes))
    report["macro"] = {"precision": float(precision.mean()), "recall": float(recall.mean()), "f1": float(f1.mean())}
    report["per_class"] = [
        {
            "class": str(classes[i]),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i in indices
    ]
    report["confusion_matrix"] = confusion_matrix(labels, predictions, labels=indices).tolist()
    return report


def _loss(labels: np.ndarray, probabilities: np.ndarray, classes: int) -> float:
    from sklearn.metrics import log_loss

    if probabilities.shape != (len(labels), classes):
        raise ValueError(
            f"classification_report: expected probabilities of shape {(len(labels), classes)}, "
            f"received {probabilities.shape}"
        )
    totals = probabilities.sum(axis=1, keepdims=True)
    if not np.allclose(totals, 1, atol=1e-3):
        raise ValueError("classification_report: expected probabilities whose rows sum to 1")
    return float(log_loss(labels, probabilities / totals, labels=range(classes)))  # float32 rows sum to 1 only nearly
