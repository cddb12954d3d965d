"""What a notebook shows: HTML that is well formed, says what the text says, and lets no markup through."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import minicnn
from minicnn import Tensor, nn, plots, tensor
from minicnn.compile import Profile
from minicnn.compile.profile import Row
from minicnn.models import LeNet
from minicnn.text import html_table, html_text
from minicnn.training import History
from shared.runs import Run, batches

MARKUP = "<script>alert('&amp;')</script>"
BATCH = batches(1, (9, 3, 32, 32))


def cells(html):
    """The caption, and the text of each cell of each row."""
    box = ElementTree.fromstring(html)
    return box[0].text, [[cell.text or "" for cell in row] for row in box.iter("tr")]


def test_a_table():
    caption, rows = cells(html_table("a < b", ["name", "number"], [["x", "1"], ["one line"], ["", "2"]], {1}))
    assert caption == "a < b"
    assert rows == [["name", "number"], ["x", "1"], ["one line"], ["", "2"]]
    html = html_table("", ["name", "number"], [["x", "1"], ["one line"]], {1})
    assert html.count('colspan="2"') == 1 and html.count("right") == html.count("left") - 1 == 2
    assert "colspan" not in html_table("", ["name"], [["x"]])


def test_a_share_is_a_percentage_on_a_bar_of_its_length():
    html = html_table("c", ["share"], [[0.25], ["0.5"]])
    assert cells(html)[1] == [["share"], ["25.0%"], ["0.5"]]
    assert html.count("linear-gradient") == 1 and ".3) 25.0%,transparent 25.0%" in html


def test_markup_is_text():
    for html in (html_table(MARKUP, [MARKUP], [[MARKUP]]), html_text(MARKUP, MARKUP)):
        assert "<script" not in html
        assert "".join(ElementTree.fromstring(html).itertext()).replace(MARKUP, "") == ""
    _, rows = cells(html_table("c", ["a\nb"], [["\x1b[31mred\u202e"]]))
    assert rows == [[r"a\nb"], [r"\x1b[31mred\u202e"]]


@pytest.mark.parametrize(
    ("x", "caption", "elements"),
    [
        (tensor([[1.0, 2.0], [3.0, 6.0]]), "Tensor (2, 2), float32, numpy; 1 to 6, mean 3", "[[1., 2.],\n [3., 6.]]"),
        (tensor(2.5), "Tensor (), float32, numpy", "2.5"),
        (tensor([True, False]), "Tensor (2,), bool, numpy", "[ True, False]"),
        (tensor([1, 4]), "Tensor (2,), int64, numpy; 1 to 4, mean 2.5", "[1, 4]"),
        (Tensor(np.zeros((0, 3))), "Tensor (0, 3), float64, numpy", "[]"),
        (
            nn.Parameter(tensor([np.nan, 1.0, -np.inf, 2.0])),
            "Parameter (4,), float32, numpy, requires_grad; 1 to 2, mean 1.5; 2 not finite",
            "[ nan,   1., -inf,   2.]",
        ),
        (tensor([np.nan, np.nan]), "Tensor (2,), float32, numpy; 2 not finite", "[nan, nan]"),
    ],
)
def test_a_tensor(x, caption, elements):
    box = ElementTree.fromstring(x._repr_html_())
    assert box[0].text == caption and "".join(box[1].itertext()) == elements


def test_a_large_tensor_is_shown_in_part():
    assert len(Tensor(np.zeros((50, 50, 50)))._repr_html_()) < 2000


def test_a_tensor_that_is_recorded_has_no_elements():
    seen = []

    def look(x):
        seen.append((x * 2)._repr_html_())
        return x * 2

    minicnn.compile(look)(tensor([1.0]))
    assert seen == [None]


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, (3, 5), bias=False), nn.BatchNorm2d(4))
        self.scale = nn.Parameter(tensor([1.0]))

    def extra_repr(self):
        return MARKUP


def test_a_module():
    model = Odd()
    model.inner[0].requires_grad_(False)
    html = model._repr_html_()
    caption, (head, *rows) = cells(html)
    assert caption == "Odd: 189 parameters, 180 of them frozen"
    assert head == ["name", "module", "own parameters", "number"]
    assert rows == [
        ["", f"Odd({MARKUP})", "scale (1,)", "189"],
        ["  inner", "Sequential()", "", "188"],
        ["    0", "Conv2d(3, 4, (3, 5), bias=False)", "weight (4, 3, 3, 5) frozen", "180"],
        ["    1", "BatchNorm2d(4)", "weight (4,), bias (4,)", "8"],
    ]
    assert cells(nn.ReLU()._repr_html_()) == ("ReLU: 0 parameters", [head, ["", "ReLU()", "", "0"]])


def test_shared_parameters_count_once():
    layer = nn.Linear(2, 3)
    assert cells(nn.Sequential(layer, layer)._repr_html_())[0] == "Sequential: 9 parameters"


def test_a_plan_shows_what_it_prints():
    run = Run(LeNet)
    run.train(BATCH)
    (plan,) = run.step.plans.values()
    first, *lines = str(plan).splitlines()
    caption, (head, *rows) = cells(plan._repr_html_())
    assert caption == first and head == ["layer", "step", "operands"]
    assert [" ".join(row).split() for row in rows] == [line.split() for line in lines]
    assert {"  conv1", "  conv2", "  fc1"} <= {row[0] for row in rows}
    assert [row for row in rows if len(row) == 1][0] == ["the machine, over 9 images in blocks:"]


def test_a_profile():
    rows = [
        Row("conv1", "conv2d", ("products", "gather_rows"), 1.5, 0.75, 12.34, 5.0),
        Row("<b>", "sgd_step", ("sgd_steps",), 0.5, 0.25, 0.0, 2.0),
    ]
    profile = Profile(rows, 3)
    assert cells(profile._repr_html_()) == (
        "2.000 ms a replay, the mean of 3",
        [
            ["layer", "kernel", "ms", "share", "GFLOP/s", "GB/s", "instructions"],
            ["conv1", "conv2d", "1.500", "75.0%", "12.3", "5.0", "products gather_rows"],
            ["<b>", "sgd_step", "0.500", "25.0%", "", "2.0", "sgd_steps"],
        ],
    )
    assert [line.split() for line in str(profile).splitlines()] == [
        ["layer", "kernel", "ms", "share", "GFLOP/s", "GB/s", "instructions"],
        ["conv1", "conv2d", "1.500", "75.0%", "12.3", "5.0", "products", "gather_rows"],
        ["<b>", "sgd_step", "0.500", "25.0%", "2.0", "sgd_steps"],
        ["2.000", "ms", "a", "replay,", "the", "mean", "of", "3"],
    ]


@pytest.mark.parametrize(
    "figure",
    [plots.curves({"train_loss": [2.0, 1.0]}), plots.feature_maps(np.eye(4)[None])],
    ids=["curves", "sheet"],
)
def test_a_figure(figure):
    data, metadata = figure._repr_png_()
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG" and picture.width > metadata["width"] == round(96 * figure.get_figwidth())


def test_a_history():
    rows = [
        {"epoch": epoch, "validation_loss": loss, "validation_accuracy": share, "learning_rate": 0.05, "seconds": 1.25}
        for epoch, loss, share in [(1, 2.0, 0.5), (2, 1.25, 0.75), (3, 1.0, 0.625)]
    ]
    picture, table = ElementTree.fromstring(History(rows)._repr_html_())
    kind, _, encoded = picture.attrib["src"].partition(",")
    assert kind == "data:image/png;base64" and Image.open(io.BytesIO(base64.b64decode(encoded))).format == "PNG"
    assert [[cell.text or "" for cell in row] for row in table.iter("tr")] == [
        ["epoch", "validation loss", "validation accuracy", "learning rate", "seconds", ""],
        ["1", "2.0000", "50.0%", "0.05", "1.2", ""],
        ["2", "1.2500", "75.0%", "0.05", "1.2", "best"],
        ["3", "1.0000", "62.5%", "0.05", "1.2", ""],
    ]
    assert str(History(rows)).splitlines()[1:3] == [
        "    1           2.0000               50.00%           0.05      1.2",
        "    2           1.2500               75.00%           0.05      1.2  best",
    ]
    assert History()._repr_html_() is None and str(History()) == "epoch"
