import json
import math

import numpy as np
import pytest

from minicnn.training.metrics import classification_report

CLASSES = ["ant", "bee", "cat"]


def test_figures_agree_with_a_count_by_hand():
    """ant: 3 images, 2 found, predicted 3 times; bee: 2 images, 1 found, predicted twice; cat: 1 image, not found."""
    report = classification_report([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 1], CLASSES)
    assert report["images"] == 6 and report["accuracy"] == 0.5 and "loss" not in report
    assert report["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    by_class = {row.pop("class"): row for row in report["per_class"]}
    assert by_class["ant"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert by_class["bee"] == pytest.approx({"precision": 1 / 3, "recall": 1 / 2, "f1": 0.4, "support": 2})
    assert by_class["cat"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert report["macro"] == pytest.approx({"precision": 1 / 3, "recall": 7 / 18, "f1": (2 / 3 + 0.4) / 3})


def test_loss_is_the_mean_negative_log_probability_of_the_label():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32)
    report = classification_report([0, 1], [0, 1], CLASSES, probabilities)
    assert report["loss"] == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2, rel=1e-6)


def test_a_probability_of_zero_gives_a_finite_loss():
    assert 10 < classification_report([0], [1], ["a", "b"], [[0.0, 1.0]])["loss"] < 100


def test_the_report_survives_json_and_absent_classes_count_as_zero():
    thirds = np.full((1, 3), 1 / 3, np.float32)
    report = classification_report(np.array([1], np.uint8), np.array([1], np.int64), CLASSES, thirds)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["accuracy"] == 1 and report["macro"]["recall"] == pytest.approx(1 / 3)
    assert len(report["confusion_matrix"]) == len(report["per_class"]) == 3


@pytest.mark.parametrize(
    "labels, predictions, probabilities, error, message",
    [
        ([], [], None, ValueError, "N > 0"),
        ([0, 1], [0], None, ValueError, r"\(2,\) and \(1,\)"),
        ([[0]], [[0]], None, ValueError, "shape"),
        ([0.0], [0], None, TypeError, "labels, received float64"),
        ([-1], [0], None, ValueError, "from 0 to 2, received -1 to -1"),
        ([0], [3], None, ValueError, "predictions from 0 to 2"),
        ([0], [0], [[1.0]], ValueError, r"\(1, 3\), received \(1, 1\)"),
        ([0], [0], [[3.0, 1.0, 1.0]], ValueError, "sum to 1"),
        ([0], [0], [[np.nan, 1.0, 0.0]], ValueError, "sum to 1"),
    ],
)
def test_bad_input_is_named(labels, predictions, probabilities, error, message):
    with pytest.raises(error, match=message):
        classification_report(labels, predictions, CLASSES, probabilities)
