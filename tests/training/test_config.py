"""The options of a run: limits, schedules and optimizers."""

import dataclasses
import json
import math

import pytest

from minicnn import Tensor, data, nn, optim, random
from minicnn.training import Config, pretrained


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs: expected a whole number from 1, received 0"),
        ("epochs", 2.5, "epochs: expected a whole number from 1, received 2.5"),
        ("batch_size", -3, "batch_size: expected a whole number from 1, received -3"),
        ("batch_size", "8", "batch_size: expected a whole number from 1, received '8'"),
        ("lr", 0.0, "lr: expected a number above 0, received 0.0"),
        ("lr", math.nan, "lr: expected a number above 0, received nan"),
        ("lr", math.inf, "lr: expected a number above 0, received inf"),
        ("lr", None, "lr: expected a number above 0, received None"),
        ("momentum", -0.1, "momentum: expected a number from 0, received -0.1"),
        ("momentum", math.nan, "momentum: expected a number from 0, received nan"),
        ("weight_decay", math.inf, "weight_decay: expected a number from 0, received inf"),
        ("flip", 1.5, "flip: expected a number from 0 to 1, received 1.5"),
        ("accumulate", 0, "accumulate: expected a whole number from 1, received 0"),
        ("ema", 1, "ema: expected a number from 0 to less than 1, received 1"),
        ("ema", math.nan, "ema: expected a number from 0 to less than 1, received nan"),
        ("limit_batches", -1, "limit_batches: expected a whole number from 0, received -1"),
        ("augment_from", 1.5, "augment_from: expected a whole number from 0, received 1.5"),
        ("tta", 1, "tta: expected true or false, received 1"),
        ("model_options", ["depth"], r"model_options: expected a mapping, received \['depth'\]"),
        ("model_options", {"deep": 3}, "model lenet: .*deep"),
        ("label_smoothing", math.nan, "label_smoothing: expected a number from 0 to 1, received nan"),
        ("clip_norm", -1.0, "clip_norm: expected a number from 0, received -1.0"),
        ("clip_value", math.inf, "clip_value: expected a number from 0, received inf"),
        ("shift", 32, "shift: expected a whole number from 0 to 31, received 32"),
        ("early_stop", -1, "early_stop: expected a whole number from 0, received -1"),
        ("seed", -1, "seed: expected a whole number from 0, received -1"),
        ("milestones", (3, 0), r"milestones\[1\]: expected a whole number from 1, received 0"),
        ("warmup", 60, "warmup: expected fewer than the 60 epochs, received 60"),
        ("model", "lent", "model: expected one of .*, received 'lent'; did you mean 'lenet'?"),
        ("optimizer", "adm", "did you mean 'adam'?"),
        ("class_weights", "balancd", "class_weights: expected balanced or a list, each a number above 0, received"),
        ("class_weights", (), "class_weights: expected balanced or a list"),
        ("class_weights", (1.0, 0.0), "class_weights: expected balanced or a list"),
        ("schedule", "onecycle", "did you mean 'one-cycle'?"),
        (
            "precision",
            "fp16",
            "precision: expected one of float32, tf32, bf16, auto, received 'fp16'; did you mean 'bf16'?",
        ),
        ("normalize", "zscore", "normalize: expected one of mean-std, unit, weights, received 'zscore'"),
        (
            "padding_mode",
            "reflekt",
            "padding_mode: expected one of reflect, .* received 'reflekt'; did you mean 'reflect'",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Config(**{name: value})


def test_options_that_only_fail_together_are_refused():
    with pytest.raises(ValueError, match="expected a momentum and no dampening with nesterov"):
        Config(nesterov=True, momentum=0.0)
    with pytest.raises(ValueError, match=r"expected factor in \(0, 1\), received 1"):
        Config(schedule="plateau", gamma=1.0)
    assert Config(schedule="step", gamma=1.0).gamma == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: 0.8, 99: 0.8}),
        ({"schedule": "step", "step_size": 2, "gamma": 0.5}, {0: 0.8, 19: 0.8, 20: 0.4, 59: 0.2}),
        ({"schedule": "multi-step", "milestones": [1, 4]}, {9: 0.8, 10: 0.08, 39: 0.08, 40: 0.008}),
        ({"schedule": "cosine"}, {0: 0.8, 50: 0.4, 25: 0.4 * (1 + math.sqrt(0.5))}),
        ({"schedule": "one-cycle"}, {0: 0.8 / 25, 29: 0.8, 99: 0.8 / 25e4}),
        ({"schedule": "cosine", "warmup": 2}, {0: 0.8 / 21, 19: 0.8 * 20 / 21, 20: 0.8, 60: 0.4}),
        ({"schedule": "plateau"}, {0: 0.8, 99: 0.8}),
    ],
)
def test_schedules_count_in_epochs(options, expected):
    schedule = Config(epochs=10, lr=0.8, **options).make_schedule(10)
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, rel=1e-12)


def test_optimizers():
    weight = [Tensor([1.0])]
    sgd = Config(lr=0.3, momentum=0.7, nesterov=True, weight_decay=0.01).make_optimizer(weight)
    assert type(sgd) is optim.SGD
    (group,) = sgd.param_groups
    assert group == {
        "params": weight, "lr": 0.3, "momentum": 0.7, "nesterov": True, "weight_decay": 0.01, "dampening": 0.0
    }  # fmt: skip
    for name, kind in (("adam", optim.Adam), ("adamw", optim.AdamW)):
        adam = Config(optimizer=name, lr=0.3, weight_decay=0.01).make_optimizer(weight)
        (group,) = adam.param_groups
        assert type(adam) is kind and (group["lr"], group["weight_decay"]) == (0.3, 0.01)


def test_bias_and_norm_may_go_without_decay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    options = {"weight_decay": 0.1, "decay_bias_and_norm": False}
    for name in ("sgd", "adam", "adamw"):
        optimizer = Config(optimizer=name, **options).make_optimizer(model.parameters())
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        expected = {"0.weight": 0.1, "2.weight": 0.1}
        for parameter_name, parameter in model.named_parameters():
            assert decays[id(parameter)] == expected.get(parameter_name, 0.0), parameter_name


def test_zero_leaves_the_data_sets_own_split():
    assert Config(seed=3).split_options() == {"seed": 3, "validation": None, "train_size": None}
    assert Config(validation=7, train_size=9).split_options() == {"seed": 0, "validation": 7, "train_size": 9}


def test_the_size_and_channels_of_pictures():
    plain, small = Config(), Config(image_size=28, channels=1, resize=30)
    assert (plain.image_size, plain.channels, plain.resize, plain.crop) == (32, 3, 0, 0)
    assert plain.network_options == {} and small.network_options == {"image_size": 28, "in_channels": 1}
    assert Config(model="resnet20", image_size=64, channels=1).network_options == {"in_channels": 1}
    shape = {"image_size": 28, "channels": 1, "resize": 30}
    assert small.split_options() == {"seed": 0, "validation": None, "train_size": None, **shape}
    crops = Config(image_size=28, channels=1, resize=30, random_resized_crop=True)
    assert crops.crop == 28 and crops.split_options()["margin"] is True
    assert Config(random_resized_crop=True).crop == Config(random_resized_crop=True, resize=32).crop == 0
    assert Config(**json.loads(json.dumps(dataclasses.asdict(crops)))) == crops
    assert small.override(weights="lenet-cifar10").image_size == 32
    with pytest.raises(ValueError, match="tta_shift: expected a whole number from 0 to 27, received 28"):
        Config(image_size=28, tta=True, tta_shift=28)
    with pytest.raises(ValueError, match="resize: expected 0, or from image_size, 32, received 31"):
        Config(resize=31)


def test_options_of_the_model_are_replaced_one_by_one():
    config = Config(model="lenet", model_options={"relu_logits": True})
    assert config.override(lr=0.1).model_options == {"relu_logits": True}
    assert config.override(model_options={"relu_logits": False}).model_options == {"relu_logits": False}
    assert config.override(model="lenet").model_options == {"relu_logits": True}
    assert config.override(model="resnet20").model_options == {}  # they are of another model


def test_making_a_configuration_draws_no_random_number():
    before = random.get_state()
    Config(model_options={"relu_logits": True})
    assert random.get_state() == before


def test_every_field_says_what_it_does():
    for field in dataclasses.fields(Config):
        assert field.metadata["help"].endswith("."), field.name


def test_the_augmentation_is_part_of_it():
    config = Config(flip=0.5, shift=2, mixup=0.3)
    assert config.augmentation == data.Augment(flip=0.5, shift=2, mixup=0.3)
    assert dataclasses.replace(config, flip=0.0).augmentation.flip == 0
    assert Config().augmentation == data.Augment()


@pytest.mark.parametrize(
    ("field", "value", "others", "received"),
    [
        (
            "knots",
            ((0, 1), (1, 0)),
            {"schedule": "linear"},
            "expected schedule linear with it, received schedule constant",
        ),
        (
            "gamma",
            0.5,
            {"schedule": "step"},
            "schedule step or multi-step or plateau with it, received schedule constant",
        ),
        ("milestones", (3,), {"schedule": "multi-step"}, "expected schedule multi-step with it"),
        ("step_size", 5, {"schedule": "step"}, "expected schedule step with it"),
        ("patience", 5, {"schedule": "plateau"}, "expected schedule plateau with it"),
        ("lookahead_decay", 0.9, {"lookahead": 5}, "expected lookahead with it, received lookahead 0"),
        ("momentum", 0.8, {"optimizer": "sgd"}, "expected optimizer sgd with it, received optimizer adam"),
        ("nesterov", True, {"optimizer": "sgd"}, "expected optimizer sgd with it"),
        (
            "padding_mode",
            "constant",
            {"zoom": 0.1},
            "expected shift or rotation or translate or shear or zoom with it, ",
        ),
    ],
)
def test_what_somebody_chose_does_something(field, value, others, received):
    optimizer = "adam" if "optimizer" in others else "sgd"
    useless = Config(**{"optimizer": optimizer, field: value})  # as a recipe with another schedule leaves it
    assert not useless.unused(["lr", "optimizer"])
    assert list(found := useless.unused([field, "lr"])) == [field] and received in found[field]
    assert not Config(**{field: value, **others}).unused([field, *others])


def test_what_is_at_its_default_needs_nothing():
    assert not Config(optimizer="adam").unused(["momentum", "nesterov", "optimizer", "padding_mode", "patience"])
    assert list(Config(optimizer="adam", momentum=0.0, patience=0).unused(["momentum", "patience"])) == [
        "momentum",
        "patience",
    ]


def test_a_settled_configuration_keeps_its_weights(tmp_path, monkeypatch):
    """They are not read again: the file may be gone, or another one."""
    config = Config(weights="lenet-cifar10", precision="auto")
    monkeypatch.setattr(pretrained, "load", None)
    settled = config.settled("bf16")
    assert settled.source is config.source and (settled.precision, config.precision) == ("bf16", "auto")
    assert settled.settled("float32") is settled


def test_a_plateau_has_no_warm_up():
    with pytest.raises(ValueError, match="warmup: expected 0 with schedule plateau, received 2"):
        Config(schedule="plateau", warmup=2)
