"""What fit refuses, before anything changes."""

import math

import numpy as np
import pytest

from minicnn import nn
from minicnn.training import fit
from shared.fitting import QUIET, X, Y, bits, network, pictures

FLOATS = X.astype(np.float32)
NAN = FLOATS.copy()
NAN[7, 0, 2, 2] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((12, 3, 8, 3), np.uint8), Y, {}, r"fit: the shape \(12, 3, 8, 3\) does not .*layout=\"NCHW\" or lay"),
        (np.zeros((12, 9, 8, 7), np.uint8), Y, {}, r"does not tell which axis has the channels"),
        (np.zeros((12, 8), np.uint8), Y, {}, r"expected pictures \(N, H, W\), .* received shape \(12, 8\)"),
        (X, Y, {"layout": "NHWC"}, r"does not take pictures \(C, H, W\) of \(6, 1, 8\)"),
        (X, Y, {"layout": "NHW"}, r"expected pictures \(N, H, W\), received shape .*layout="),
        (X, Y, {"layout": "NWHC"}, r"layout: expected one of NCHW, NHWC, NHW, received 'NWHC'; did you mean 'NHWC'"),
        (X[:0], Y[:0], {}, r"expected pictures with pixels, received shape \(0, 1, 8, 6\)"),
        (NAN, Y, {}, "expected finite pixels, picture 7 has NaN or infinities"),
        (np.full((12, 1, 8, 6), 1e300), Y, {}, "expected finite pixels, picture 0 has"),
        (np.full((12, 1, 8, 6), 1e33), Y, {}, r"expected pixels of up to 1e\+30, received larger ones"),
        (X.astype(np.int64), Y, {}, r"expected pixels of uint8 or floats, received int64; x.astype\(np.uint8\)"),
        (X > 50, Y, {}, "expected pixels of uint8 or floats, received bool"),
        (X, Y[:, None], {}, r"expected labels \(N,\), received shape \(12, 1\); pass y\[:, 0\]"),
        (X, np.eye(3)[Y], {}, r"expected labels \(N,\), received shape \(12, 3\); of one-hot rows pass y.argmax\(1\)"),
        (X, Y.astype(float), {}, r"expected labels of integers, received float64; take y.astype\(np.int64\)"),
        (X, np.array(["a", "b", "c"])[Y], {}, "received <U1; take classes, y = np.unique"),
        (X, Y[:-1], {}, r"expected as many labels as pictures, 12, received shape \(11,\)"),
        (X, Y + 1, {}, "record 2 has label 3, expected one in 0..2"),
        (X, Y - 1, {}, "record 0 has label -1, expected one in 0..2"),
        (X, np.where(Y == 0, 2**63, Y).astype(np.uint64), {}, "record 0 has label 9223372036854775808"),
        (X, Y, {"classes": ["a", "b"]}, r"expected 3 classes, as the model has logits, received 2: \('a', 'b'\)"),
        (
            X,
            Y,
            {"validation": True},
            "expected validation as .x, y., a share, a number of pictures or None, received T",
        ),
        (X, Y, {"classes": "abc"}, "expected classes as a list of names, received the text 'abc'"),
        (X, Y, {"validation": 1.5}, "cannot split 1.5 .*expected a share above 0 and below 1"),
        (X, Y, {"validation": (X, Y + 1)}, "fit: validation: record 2 has label 3"),
        (X, Y, {"validation": (FLOATS, Y)}, "fit: validation: expected pixels of uint8.*received float32"),
        (X, Y, {"validation": X}, "expected a pair .x, y. of pictures and labels, or a Dataset, received ndarray"),
        (X, Y, {"validation": None, "early_stop": 2}, "expected validation images with them"),
        (X, Y, {"shift": 8}, "expected a shift smaller than the pictures"),
        (X, Y, {"momentum": 0.8}, "momentum: expected optimizer sgd with it, received optimizer adamw"),
        (X, Y, {"lr": 0}, "lr: expected a number above 0, received 0"),
        (X, Y, {"optimizer": "adamv"}, "optimizer: expected one of .*did you mean 'adam'"),
        (X, Y, {"class_weights": "balance"}, "class_weights: expected balanced or a list.*received 'balance'"),
        (X, Y, {"class_weights": {0: 1.0}}, "class_weights: expected balanced or a list.*received {0: 1.0}"),
        (X, Y, {"class_weights": [1, 2]}, "class_weights: expected 3 numbers, received 2"),
        (X, Y, {"class_weights": [1, 2, math.nan]}, "class_weights: expected balanced or a list"),
        (X, Y % 2, {"class_weights": "balanced"}, "expected a training image of each class .*none of 2"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_changes(x, y, options, message):
    model = network()
    before = bits(model)
    with pytest.raises(ValueError, match=message):
        fit(model, (x, y), **{**QUIET, **options})
    assert bits(model) == before and all(module.training for module in model.modules())
    assert not hasattr(model, "preprocessing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentun": 0.9}, "fit: unknown options: 'momentun'; did you mean 'momentum'?"),
        ({"weights": "lenet"}, "fit: unknown options: 'weights'"),
        ({"augment": {"flop": 0.5}}, "fit: unknown augment: 'flop'; did you mean 'flip'?"),
        ({"augment": {"flip": 0.5}, "flip": 0.5}, "expected flip once"),
        ({"augment": 0.5}, "expected augment as a mapping or an Augment, received float"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(TypeError, match=message):
        fit(network(), (X, Y), **QUIET, **options)


class Own(nn.Module):
    """A network with an attribute of the name that fit uses."""

    def __init__(self):
        super().__init__()
        self.preprocessing = nn.Linear(48, 3)

    def forward(self, input):
        return self.preprocessing(input.reshape(len(input), -1))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (nn.Linear, TypeError, "fit: expected a Module, received the class Linear; write Linear"),
        (nn.Sequential(nn.Flatten()), ValueError, "expected a parameter to train, received none"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), ValueError, r"does not take pictures .* of \(1, 8, 6\): "),
        (nn.Sequential(nn.Linear(6, 3)), ValueError, r"expected logits \(N, K\), received shape \(1, 1, 8, 3\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 3).astype("float64")), ValueError, "take model.astype"),
        (Own(), ValueError, "expected a Preprocessing as Own.preprocessing, received Linear; rename that attribute"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_trained(model, error, message):
    with pytest.raises(error, match=message):
        fit(model, (X, Y), **QUIET)


def test_one_class_is_learned():
    x, _ = pictures()
    history = fit(network(classes=1), (x, np.zeros(60, int)), **QUIET)
    assert history[-1]["validation_accuracy"] == 1
