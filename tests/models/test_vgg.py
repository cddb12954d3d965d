"""The VGG-like network: the names of its default, which stored weights rely on, and its options."""

import pytest

from minicnn import models, nn


def kinds(**options):
    return [type(layer).__name__ for layer in models.create("vgg", **options).features]


def test_the_default():
    stage = ["Conv2d", "ELU", "BatchNorm2d"] * 2 + ["MaxPool2d", "Dropout"]
    model = models.create("vgg")
    assert kinds() == stage * 3
    assert [layer.p for layer in model.features if isinstance(layer, nn.Dropout)] == [0.2, 0.3, 0.4]
    places = [8 * stage + i for stage in range(3) for i in (0, 2, 3, 5)]
    names = [f"features.{i}.{name}" for i in places for name in ("weight", "bias")]
    assert [name for name, _ in model.named_parameters()] == [*names, "classifier.weight", "classifier.bias"]


def test_a_staged_study_is_a_matter_of_options():
    plain = ["Conv2d", "ReLU"] * 2 + ["MaxPool2d"]
    assert kinds(dropout=0, batch_norm=False, activation="relu") == plain * 3
    normed = ["Conv2d", "ReLU", "BatchNorm2d"] * 2 + ["MaxPool2d"]
    assert kinds(dropout=[0.0, 0.0], widths=[8, 4], activation="relu") == normed * 2
    assert kinds(dropout=[0, 0.5], widths=[8, 4], activation="relu") == [*normed, *normed, "Dropout"]
    rates = [layer.p for layer in models.create("vgg", dropout=0.25).features if isinstance(layer, nn.Dropout)]
    assert rates == [0.25] * 3


@pytest.mark.parametrize("batch_norm", [True, False])
def test_parameters(batch_norm):
    """By hand: 3 x 3 filters and biases, two numbers a channel for batch norm, and the classifier on 8 x 8 pixels."""
    inputs, outputs = [3, 8, 8, 12], [8, 8, 12, 12]
    expected = sum(9 * i * o + o for i, o in zip(inputs, outputs, strict=True))
    expected += batch_norm * 2 * sum(outputs) + 12 * 64 * 7 + 7
    model = models.create("vgg", 7, widths=[8, 12], dropout=0.1, batch_norm=batch_norm)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    "options, message",
    [
        ({"widths": []}, r"VGG: expected widths as 1 to 5 integers from 1, received \[\]"),
        ({"widths": [4] * 6}, "VGG: expected widths as 1 to 5 integers"),
        ({"widths": 32}, "VGG: expected widths .* received 32"),
        ({"widths": [32, 0]}, r"VGG: expected widths .* received \[32, 0\]"),
        ({"widths": [32, 1.5]}, "VGG: expected widths"),
        ({"widths": [4, 5]}, r"VGG: expected dropout as a number in \[0, 1\) or 2 of them, received \(0.2, 0.3, 0.4\)"),
        ({"dropout": 1}, "VGG: expected dropout as a number .* received 1"),
        ({"dropout": "much"}, "VGG: expected dropout .* received 'much'"),
        ({"dropout": [0.1, 0.2, -0.3]}, "VGG: expected dropout"),
        ({"dropout": [0.1, 0.2, "0.3"]}, "VGG: expected dropout"),
        ({"batch_norm": "no"}, "VGG: expected batch_norm as true or false, received 'no'"),
        ({"activation": "swish"}, "VGG: expected activation 'elu' or 'relu', received 'swish'"),
        ({"activation": ["elu"]}, r"VGG: expected activation 'elu' or 'relu', received \['elu'\]"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("vgg", **options)
