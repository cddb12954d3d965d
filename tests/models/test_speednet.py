"""The network of the recipe "speedrun": its layers, what it starts from, and its options."""

import numpy as np
import pytest

from minicnn import Tensor, models, nn


def kinds(**options):
    return [type(layer).__name__ for layer in models.create("speednet", **options).features]


def test_the_default():
    stage = ["Conv2d", "MaxPool2d", "BatchNorm2d", "GELU", "Conv2d", "BatchNorm2d", "GELU"]
    assert kinds() == ["GELU", *stage * 3]
    assert kinds(widths=[8], activation="elu") == ["ELU", *(name.replace("GELU", "ELU") for name in stage)]
    model = models.create("speednet")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    norms = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.BatchNorm2d)]
    fixed = {f"features.{i}.weight" for i in norms}
    assert {name for name, _ in model.named_parameters()} - set(trained) == fixed
    assert model(Tensor(np.zeros((2, 3, 32, 32), np.float32))).shape == (2, 10)


def test_filters_start_as_copies_of_their_inputs():
    for dirac in (True, False):
        weight = models.create("speednet", widths=[30, 20], dirac=dirac).features[1].weight.numpy()
        copies = np.zeros((24, 24, 3, 3), np.float32)
        copies[range(24), range(24), 1, 1] = 1
        assert (weight[:24] == copies).all() == dirac and weight[24:].std() > 0.01
    narrow = models.create("speednet", widths=[30, 20]).features[8].weight.numpy()
    assert (narrow[:, :, 1, 1] == np.eye(20, 30)).all() and narrow.sum() == 20


def test_logits_are_scaled():
    one, other = (models.create("speednet", widths=[8], scale=scale) for scale in (1, 0.25))
    other.load_state_dict(one.state_dict())
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    np.testing.assert_array_equal(other.eval()(x).numpy(), one.eval()(x).numpy() / 4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"widths": []}, r"SpeedNet: expected widths as 1 to 4 integers from 1, received \[\]"),
        ({"widths": [8] * 5}, "SpeedNet: expected widths"),
        ({"widths": [8, 0.5]}, "SpeedNet: expected widths"),
        ({"scale": 0}, "SpeedNet: expected scale as a number above 0, received 0"),
        ({"scale": "1"}, "SpeedNet: expected scale"),
        ({"dirac": 1}, "SpeedNet: expected dirac as true or false, received 1"),
        ({"activation": "tanh"}, "SpeedNet: expected activation 'gelu', 'elu' or 'relu', received 'tanh'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("speednet", **options)
