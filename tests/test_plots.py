import io
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from minicnn import plots

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
AWKWARD = ["$x^2", "a class name that would never fit", "Straße\nλ", "", "50 %", "\\frac{", "日本", "_", "dog", "{0}"]
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 12), np.uint8)


@pytest.fixture(autouse=True)
def only_missing_glyphs_may_warn():
    """What the fonts of this machine lack cannot be helped; everything else that matplotlib warns of is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def drawn(figure):
    picture = Image.open(io.BytesIO(plots.to_png(figure, dpi=100)))  # as figure.dpi, so that extents are as drawn
    assert picture.format == "PNG" and min(picture.size) > 50
    return np.asarray(picture.convert("RGB"))


def texts(figure):
    """Every visible text of a figure, after drawing."""
    drawn(figure)
    hidden = set()  # the labels of ticks beyond the limits exist, undrawn
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        hidden |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    every = figure.findobj(matplotlib.text.Text)
    return [text for text in every if text.get_visible() and text.get_text() and text not in hidden]


def assert_apart(figure):
    """No two texts overlap, slanted ones aside, whose boxes are not their outlines; all lie on the page."""
    straight = [text for text in texts(figure) if text.get_rotation() % 90 == 0]
    boxes = [(text.get_text(), text.get_window_extent()) for text in straight]
    width, height = figure.get_size_inches() * figure.dpi
    for number, (name, box) in enumerate(boxes):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, name
        for other, second in boxes[:number]:
            overlap = (min(box.x1, second.x1) - max(box.x0, second.x0), min(box.y1, second.y1) - max(box.y0, second.y0))
            assert min(overlap) < 1.5, (name, other)


def history(epochs):
    falling = np.linspace(2, 1, epochs)
    return {
        "epoch": list(range(1, epochs + 1)),
        "train_loss": falling,
        "validation_loss": falling + 0.1,
        "train_accuracy": 1 - falling / 2.5,
        "validation_accuracy": 1 - falling / 2.4,
        "learning_rate": falling / 100,
        "seconds": falling,
    }


@pytest.mark.parametrize("epochs", [1, 2, 60, 1000])
def test_curves_hold_the_history(epochs):
    columns = history(epochs)
    figure = plots.curves(columns)
    assert_apart(figure)
    loss, accuracy, rate = figure.axes
    for axes, keys in ((loss, ["train_loss", "validation_loss"]), (rate, ["learning_rate"])):
        curves = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == epochs]
        for key, curve in zip(keys, curves, strict=False):
            np.testing.assert_array_equal(curve, columns[key])
    assert accuracy.get_title(loc="right") == f"58.3% at best epoch {epochs}" if epochs > 1 else True


def test_the_best_epoch_has_the_highest_validation_accuracy_and_of_equals_the_lowest_loss():
    columns = {"validation_accuracy": [0.5, 0.7, 0.7, 0.6], "validation_loss": [4.0, 3.0, 2.0, 1.0]}
    assert [axes.get_title(loc="right") for axes in plots.curves(columns).axes] == [
        "2.000 at best epoch 3",
        "70.0% at best epoch 3",
    ]
    (only,) = plots.curves({"validation_loss": [np.nan, 3.0, 2.0, np.inf]}).axes
    assert only.get_title(loc="right") == "2.000 at best epoch 3"


def test_curves_leave_out_what_is_missing_or_never_finite():
    drawn(plots.curves({"train_loss": [np.nan, np.nan], "train_accuracy": [0.1, np.nan], "learning_rate": [0.0, 0.0]}))
    drawn(plots.curves({"train_loss": [np.nan]}))
    for columns in ({}, {"train_loss": []}, {"train_loss": [1.0], "train_accuracy": [0.1, 0.2]}):
        with pytest.raises(ValueError, match="columns of one length"):
            plots.curves(columns)


@pytest.mark.parametrize("size", [2, 10, 30, 31, 100])
def test_a_confusion_matrix_of_any_size(size):
    counts = np.diag(np.full(size, 100)) + 1
    figure = plots.confusion_matrix(counts.tolist(), [f"class number {index}" for index in range(size)])
    drawn(figure)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ([str(count) for count in counts.ravel()] if size <= 30 else [])
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))
    if size <= 10:
        assert_apart(figure)


def test_a_confusion_matrix_with_an_empty_row_and_millions():
    drawn(plots.confusion_matrix([[0, 0], [1234567, 7654321]], ["a", "b"]))
    with pytest.raises(ValueError, match=r"\(2, 2\). Received: \(1, 2\)"):
        plots.confusion_matrix([[1, 2]], ["a", "b"])


@pytest.mark.parametrize("classes", [CLASSES, AWKWARD])
@pytest.mark.parametrize("number", [1, 3, 9])
def test_samples_show_both_labels_and_the_verdict(classes, number):
    labels = np.arange(number)
    predictions = np.where(labels % 2, labels, (labels + 1) % 10)
    figure = plots.samples(IMAGES[:number], labels, predictions, classes, np.full((number, 10), 0.1))
    assert_apart(figure)
    assert len(figure.axes) == number
    frames = [to_hex(axes.spines["top"].get_edgecolor()).upper() for axes in figure.axes]
    assert frames == [plots.GREEN if right else plots.RED for right in labels == predictions]
    if classes is CLASSES:
        words = [text.get_text() for text in texts(figure)]
        assert "✗ automobile" in words and "10%, is airplane" in words
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), IMAGES[0].transpose(1, 2, 0))


def test_samples_stop_at_the_limit_and_need_no_probabilities():
    figure = plots.samples(IMAGES, [0] * 9, [0] * 9, CLASSES, limit=4)
    assert len(figure.axes) == 4
    assert "Samples: 4 of 4 right" in [text.get_text() for text in texts(figure)]


def test_mistakes_are_the_surest_wrong_ones_in_order():
    labels = np.zeros(9, int)
    predictions = np.array([0, 1, 1, 0, 2, 2, 0, 0, 3])
    probabilities = np.zeros((9, 10))
    probabilities[np.arange(9), predictions] = [0.99, 0.5, 0.9, 0.98, 0.7, 0.8, 1, 1, 0.6]
    figure = plots.mistakes(IMAGES, labels, predictions, CLASSES, probabilities, limit=3)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown, IMAGES[[2, 5, 4]].transpose(0, 2, 3, 1))
    assert "Worst mistakes: the 3 surest of 5 wrong among 9 images" in [text.get_text() for text in texts(figure)]
    perfect = plots.mistakes(IMAGES, labels, labels, CLASSES, probabilities)
    assert [text.get_text() for text in texts(perfect)] == ["No mistakes among 9 images"]


def test_galleries_refuse_nothing_and_mismatches():
    with pytest.raises(ValueError, match="N > 0"):
        plots.samples(IMAGES[:0], [], [], CLASSES)
    with pytest.raises(ValueError, match=r"\(9, 3, 8, 12\), \(9,\), \(8,\)"):
        plots.mistakes(IMAGES, [0] * 9, [0] * 8, CLASSES, np.zeros((9, 10)))


@pytest.mark.parametrize("classes", [["cat", "dog"], CLASSES, AWKWARD, [f"class {index}" for index in range(100)]])
def test_probability_bars_show_the_ten_highest(classes):
    values = np.random.default_rng(1).dirichlet(np.ones(len(classes)))
    figure = plots.probability_bars(IMAGES[0], values, classes)
    assert_apart(figure)
    bars = [patch.get_width() for patch in figure.axes[1].patches]
    np.testing.assert_allclose(bars, np.sort(values)[::-1][:10])
    with pytest.raises(ValueError, match="probabilities"):
        plots.probability_bars(IMAGES[0], values[1:], classes)


def test_the_same_figure_gives_the_same_bytes_at_the_size_asked_for():
    first, second = (plots.to_png(plots.curves(history(3)), dpi=100) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).size == (900, 300)


def test_drawing_changes_no_global_state_and_never_loads_pyplot():
    script = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from minicnn import plots; plots.to_png(plots.curves({'train_loss': [1.0]}))\n"
        "assert matplotlib.rcParams.copy() == before and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
