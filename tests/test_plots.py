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
AWKWARD = [
    "$x^2",
    "a class name that would never fit",
    "Straße\nλ",
    "",
    "50 %",
    "\\frac{",
    "日本",
    "_x",
    "\x1b[1m\u202e\x9b",
    "\udcff{0}",
]
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


def arrows(axes):
    return {text.get_text(): (text.xy, text.get_color()) for text in axes.texts}


def test_a_spike_is_cut_and_pointed_at():
    columns = history(30)
    columns["validation_loss"] = columns["validation_loss"].copy()
    columns["validation_loss"][11] = 512.0
    columns["validation_accuracy"] = np.linspace(0.90, 0.95, 30)
    columns["train_accuracy"] = np.linspace(0.90, 0.96, 30)
    columns["validation_accuracy"][20] = 0.1
    figure = plots.curves(columns)
    assert_apart(figure)
    loss, accuracy, _ = figure.axes
    assert loss.get_ylim() == pytest.approx((1 - 0.06 * 1.1, 2.1 + 0.06 * 1.1), abs=1e-6)
    assert arrows(loss) == {"512": ((12, loss.get_ylim()[1]), plots.BLUE)}
    assert arrows(accuracy) == {"10%": ((21, accuracy.get_ylim()[0]), plots.BLUE)}
    assert 0.85 < accuracy.get_ylim()[0] < 0.9
    sheet = plots.runs({"a": columns, "b": history(30)})
    assert_apart(sheet)
    assert set(arrows(sheet.axes[1])) == {"512"} and sheet.axes[1].get_ylim()[1] < 3


@pytest.mark.parametrize("wild", [[0], [0, 1], [49], [48, 49], [0, 49]])
def test_spikes_at_the_ends_are_cut(wild):
    losses = 2 / np.arange(1, 51) ** 0.5
    losses[wild] = np.linspace(5e4, 3e4, len(wild))
    (axes,) = plots.curves({"validation_loss": losses}).axes
    assert axes.get_ylim()[1] < 3 and len(axes.texts) == len(wild)


@pytest.mark.parametrize(
    "losses",
    [
        [2.3, 0.1, 0.09, 0.08, 0.07, 0.07],  # a steep beginning
        [1.0, 0.9, 0.8, 0.7, 0.9, 30.0],  # it diverges at the end
        [1.0, 1.0, 1.0, 9.0, 1.0, 1.0],  # nothing else to see
        [1.0, 1.3, 0.9, 1.2, 0.8, 1.3, 0.7],  # noise
        [1.0, 50.0, 0.5],  # too few to tell
    ],
)
def test_what_is_no_spike_is_shown_whole(losses):
    (axes,) = plots.curves({"validation_loss": losses}).axes
    low, high = axes.get_ylim()
    assert low <= min(losses) and high >= max(losses) and not axes.texts


@pytest.mark.parametrize("epochs", [1, 60, 200])
def test_legends_lie_beside_the_curves(epochs):
    columns = history(epochs)
    rates = np.geomspace(1e-4, 1, 50)
    figures = [plots.curves(columns), plots.runs({"a": columns}), plots.learning_rates(rates, rates, rates, 0.1)]
    for figure in [*figures, plots.profile({"conv1": (1.0, 2.0)})]:
        drawn(figure)
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert not any(axes.get_legend() for axes in figure.axes)
        assert all(box.y1 <= axes.get_tightbbox().y0 + 1 for axes in figure.axes)


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
    with pytest.raises(ValueError, match=r"\(2, 2\), received \(1, 2\)"):
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


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.5, 2.5), (0.0, 255.0), (3.0, 3.0)])
def test_pictures_of_floats_and_of_any_channels(channels, low, high):
    images = np.random.default_rng(0).uniform(low, high, (3, channels, 5, 9)).astype(np.float32)
    figures = [
        plots.samples(images, [0, 1, 2], [0, 1, 1], CLASSES),
        plots.mistakes(images, [0, 1, 2], [0, 1, 1], CLASSES, np.full((3, 10), 0.1)),
        plots.probability_bars(images[0], np.full(10, 0.1), CLASSES),
        plots.overlays(images, np.zeros((3, 2, 2)), ["a", "b", "c"]),
        plots.before_after(images, images, ["a", "b", "c"]),
    ]
    for figure in figures:
        assert_apart(figure)
        shown = figure.axes[0].images[0].get_array()
        assert shown.shape[:2] == (5, 9) and 0 <= shown.min() <= shown.max() <= 1
    expected = images if (low, high) == (0, 1) else (images - images[0].min()) / (np.ptp(images[0]) or 1)
    one = expected[0].transpose(1, 2, 0) if channels == 3 else expected[0].mean(axis=0)
    np.testing.assert_allclose(figures[0].axes[0].images[0].get_array(), one, rtol=1e-5, atol=1e-6)


def test_samples_stop_at_the_limit_and_need_no_probabilities():
    figure = plots.samples(IMAGES, [0] * 9, [0] * 9, CLASSES, limit=4)
    assert len(figure.axes) == 4
    assert "Samples: 4 of 4 right" in [text.get_text() for text in texts(figure)]


def test_samples_are_of_all_classes_in_turn():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])  # as in a folder, sorted
    assert plots.in_turn(labels).tolist() == [0, 3, 5, 1, 4, 6, 2, 7, 8]
    figure = plots.samples(IMAGES, labels, labels, CLASSES, limit=4)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown, IMAGES[[0, 3, 5, 1]].transpose(0, 2, 3, 1))


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


@pytest.mark.parametrize("number", [1, 8, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_before_stands_above_after(number, channels):
    before = IMAGES[:number, :channels]
    figure = plots.before_after(before, 255 - before, AWKWARD[:number] if number < 9 else CLASSES[:9])
    assert_apart(figure)
    pairs = [axes.images[0].get_array() for axes in figure.axes]
    assert len(pairs) == 2 * number
    for index in range(number):
        first, second = figure.axes[2 * index : 2 * index + 2]
        assert first.get_position().y0 > second.get_position().y1
        assert first.get_position().x0 == second.get_position().x0
        expected = before[index, 0] if channels == 1 else before[index].transpose(1, 2, 0)
        np.testing.assert_array_equal(pairs[2 * index], expected)
        np.testing.assert_array_equal(pairs[2 * index + 1], 255 - expected)
    with pytest.raises(ValueError, match="n captions"):
        plots.before_after(before, before, ["x"] * (number + 1))


def test_learning_rates_show_the_losses_their_mean_and_the_suggestion():
    rates, losses = np.geomspace(1e-4, 1, 50), np.linspace(2.3, 1.2, 50)
    losses[-3:] = 1e5, np.nan, np.inf
    means = losses + 0.01
    figure = plots.learning_rates(rates, losses, means, 0.031)
    assert_apart(figure)
    (axes,) = figure.axes
    raw, smooth, marked = axes.lines
    assert axes.get_xscale() == "log"
    np.testing.assert_array_equal(raw.get_ydata(), losses[:-2])
    np.testing.assert_array_equal(smooth.get_ydata(), means[:-2])
    assert list(marked.get_xdata()) == [0.031, 0.031]
    assert "suggestion: 0.031" in [text.get_text() for text in texts(figure)]
    assert axes.get_ylim()[0] < 1.2 and 2.3 < axes.get_ylim()[1] < 4
    drawn(plots.learning_rates([0.1], [2.0], [2.0], 0.1))
    for bad in (([0.1], [np.nan], [1.0]), ([0.1, 0.2], [1.0], [1.0]), ([0.1], [1.0], [])):
        with pytest.raises(ValueError, match="learning_rates: expected"):
            plots.learning_rates(*bad, 0.1)


@pytest.mark.parametrize("number", [1, 2, 8, 20])
def test_runs_lie_on_one_sheet(number):
    histories = {f"a run with quite a long name {index}": history(index + 1) for index in range(number)}
    figure = plots.runs(histories)
    assert_apart(figure)
    accuracy, loss, gap, rate = figure.axes
    columns = list(histories.values())[-1]
    for axes, expected in (
        (accuracy, columns["validation_accuracy"]),
        (loss, columns["validation_loss"]),
        (gap, np.subtract(columns["train_accuracy"], columns["validation_accuracy"])),
        (rate, columns["learning_rate"]),
    ):
        of_runs = [line for line in axes.lines if line.get_linestyle() != "None" and line.get_color() != plots.FAINT]
        longest = [line.get_ydata() for line in of_runs if len(line.get_xdata()) == number]
        np.testing.assert_array_equal(longest, [expected])
    looks = {(line.get_color(), line.get_linestyle()) for line in loss.lines if line.get_linestyle() != "None"}
    assert len(looks) == number
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == number and names[0].endswith(f": {1 - 2 / 2.4:.1%} at epoch 1")


def test_the_legend_of_runs_has_every_name_as_it_is():
    figure = plots.runs({name: history(2) for name in AWKWARD})
    assert_apart(figure)
    names = [text.get_text().split(": ")[0] for text in figure.legends[0].get_texts()]
    assert names == [*AWKWARD[:2], "Straße λ", *AWKWARD[3:8], "\ufffd[1m\ufffd\ufffd", "\ufffd{0}"]


def test_runs_need_accuracies_only_and_spread_rates_on_a_logarithmic_axis():
    drawn(plots.runs({"a": {"validation_accuracy": [0.1, 0.4]}}))
    rates = {name: {"validation_accuracy": [0.1], "learning_rate": [rate]} for name, rate in (("a", 1.0), ("b", 1e-3))}
    assert plots.runs(rates).axes[3].get_yscale() == "log"
    for nothing in ({}, {"a": {}}, {"a": {"validation_accuracy": []}}):
        with pytest.raises(ValueError, match="one history at least"):
            plots.runs(nothing)


@pytest.mark.parametrize("number", [1, 6, 32, 80])
@pytest.mark.parametrize("channels", [3, 4])
def test_filters_are_scaled_one_by_one(number, channels):
    weights = np.random.default_rng(0).normal(size=(number, channels, 3, 2)).astype(np.float32)
    weights[0] = 7  # without a scale
    figure = plots.filters(weights)
    assert_apart(figure)
    assert len(figure.axes) == min(number, 64)
    tiles = [axes.images[0].get_array() for axes in figure.axes]
    assert (tiles[0] == 0.5).all()
    for tile, filter in zip(tiles[1:], weights[1:], strict=False):
        expected = filter.transpose(1, 2, 0) if channels == 3 else filter.mean(axis=0)
        np.testing.assert_allclose(tile, (expected - expected.min()) / np.ptp(expected), rtol=1e-4, atol=1e-6)


def test_feature_maps_are_scaled_one_by_one():
    maps = np.arange(2 * 3 * 4.0).reshape(2, 3, 4) ** 2
    figure = plots.feature_maps(maps, "Feature maps, layer $conv")
    assert "Feature maps, layer $conv: 2 of 3 x 4, each on a scale of its own" in [t.get_text() for t in texts(figure)]
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), (maps[1] - 144) / (529 - 144))
    assert len(plots.feature_maps(np.ones((70, 2, 2))).axes) == 64
    for draw, shape in ((plots.feature_maps, (0, 3, 3)), (plots.filters, (3, 3, 3))):
        with pytest.raises(ValueError, match=r"received \("):
            draw(np.ones(shape))


@pytest.mark.parametrize("number", [1, 4, 9])
def test_overlays_lay_heat_over_the_whole_picture(number):
    heat = np.linspace(0, 1, number * 6).reshape(number, 2, 3)
    captions = ["✓ cat 90%", "✗ dog 51%, is cat", *AWKWARD][:number]
    figure = plots.overlays(IMAGES[:number], heat, captions, "Grad-CAM, layer $x")
    assert_apart(figure)
    assert len(figure.axes) == 2 * number
    for index in range(number):
        plain, under = figure.axes[2 * index : 2 * index + 2]
        np.testing.assert_array_equal(plain.images[0].get_array(), IMAGES[index].transpose(1, 2, 0))
        picture, layer = under.images
        np.testing.assert_allclose(picture.get_array() / picture.get_clim()[1], IMAGES[index].mean(axis=0) / 255)
        np.testing.assert_array_equal(layer.get_array(), heat[index])
        assert picture.get_extent() == [-0.5, 11.5, 7.5, -0.5] and list(layer.get_extent()) == picture.get_extent()
    colours = {text.get_text(): to_hex(text.get_color()).upper() for text in texts(figure)}
    assert colours["✓ cat 90%"] == plots.GREEN
    with pytest.raises(ValueError, match="n captions"):
        plots.overlays(IMAGES[:number], heat, captions[1:])


def test_heat_of_nothing_leaves_the_picture_grey_and_full_heat_is_bright():
    white = np.full((1, 3, 8, 8), 128, np.uint8)
    cold, hot = (drawn(plots.overlays(white, np.full((1, 2, 2), level), ["x"])) for level in (0.0, 1.0))
    middle = cold[cold.shape[0] // 3, cold.shape[1] * 3 // 4]
    assert (middle == 128).all()
    red, green, blue = hot[hot.shape[0] // 3, hot.shape[1] * 3 // 4].astype(int)
    assert red > 200 and green > 150 and blue < 80


def test_the_same_figure_gives_the_same_bytes_at_the_size_asked_for():
    first, second = (plots.to_png(plots.curves(history(3)), dpi=100) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).size == (900, 330)


def test_drawing_changes_no_global_state_and_never_loads_pyplot():
    script = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from minicnn import plots; plots.to_png(plots.curves({'train_loss': [1.0]}))\n"
        "assert matplotlib.rcParams.copy() == before and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("wrong", [1, 4, 9])
def test_the_title_of_few_mistakes_lies_on_the_page(wrong):
    images = np.zeros((10_000, 3, 1, 1), np.uint8)
    labels = np.repeat([1, 0], [wrong, 10_000 - wrong])
    probabilities = np.tile([1.0, 0.0], (10_000, 1))
    assert_apart(plots.mistakes(images, labels, np.zeros(10_000, int), ["cat", "dog"], probabilities))


def test_characters_without_a_glyph_are_one_warning():
    figure = plots.confusion_matrix([[1, 0], [0, 1]], ["\U000f0001\U000f0002", "\U000f0001"])
    with pytest.warns(UserWarning, match="the font of pictures has no \U000f0001\U000f0002: ") as caught:
        plots.to_png(figure)
    assert len(caught) == 1
