"""The options of train, and the list of recipes."""

import json
import re
from dataclasses import fields

import pytest

from minicnn.training import Config, config, recipe_names


@pytest.mark.parametrize(
    ("words", "check"),
    [
        (("--optimizer", "adamw", "--lr", 0.001), {"optimizer": "adamw", "lr": 0.001}),
        (("--schedule", "multi-step", "--milestones", "1,2", "--gamma", 0.5), {"milestones": [1, 2], "gamma": 0.5}),
        (("--schedule", "step", "--step-size", 1, "--warmup", 1), {"step_size": 1, "warmup": 1}),
        (("--schedule", "plateau", "--patience", 0), {"schedule": "plateau", "patience": 0}),
        (("--no-nesterov", "--momentum", 0.5, "--weight-decay", 0.01), {"nesterov": False, "weight_decay": 0.01}),
        (("--clip-norm", 1, "--clip-value", 0.1, "--label-smoothing", 0.2), {"clip_norm": 1.0, "label_smoothing": 0.2}),
        (("--normalize", "unit", "--model-option", "relu_logits=true"), {"model_options": {"relu_logits": True}}),
        (("--ema", 0.9, "--accumulate", 2, "--no-decay-bias-and-norm"), {"ema": 0.9, "decay_bias_and_norm": False}),
        (("--tta", "--limit-batches", 2, "--overfit-batch"), {"tta": True, "limit_batches": 2, "overfit_batch": True}),
        (("--mixup", 0.2, "--rotation", 10, "--augment-from", 2), {"mixup": 0.2, "rotation": 10, "augment_from": 2}),
        (("--flip", 0.5, "--shift", 1, "--padding-mode", "constant"), {"flip": 0.5, "padding_mode": "constant"}),
        (("--recipe", "lenet", "--batch-size", 50, "--early-stop", 1), {"batch_size": 50, "early_stop": 1}),
        (("--model", "lenet", "--seed", 7), {"model": "lenet", "seed": 7}),
        (("--schedule", "linear", "--knots", "0:.5,0.25:1,1:0"), {"knots": [[0.0, 0.5], [0.25, 1.0], [1.0, 0.0]]}),
        (("--lookahead", 2, "--lookahead-decay", 0.9, "--bias-lr", 4), {"lookahead": 2, "bias_lr": 4.0}),
        (("--class-weights", "balanced"), {"class_weights": "balanced"}),
        (("--class-weights", "1,0.5,2,1,1,1,1,1,1,.25"), {"class_weights": [1, 0.5, 2, 1, 1, 1, 1, 1, 1, 0.25]}),
        (("--class-weights", ".5,1,2,1,1,1,1,1,1,1"), {"class_weights": [0.5, 1, 2, 1, 1, 1, 1, 1, 1, 1]}),
        (("--whiten", 50, "--whiten-bias", 1), {"whiten": 50, "whiten_bias": 1}),
        (("--flip", 0.5, "--alternate", "--tta", "--tta-shift", 2), {"alternate": True, "tta_shift": 2}),
    ],
)
def test_every_option_arrives(train, tmp_path, words, check):
    code, _, err = train("--epochs", 3, "--stop-after", 1, *words, "--out", tmp_path)
    assert (code, err) == (0, "")
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    assert {name: config[name] for name in check} == check


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("1,2", 1, "class_weights: expected 10 numbers, received 2"),
        ("1,x", 2, "class_weights: expected balanced, or numbers as 1,0.5,2, received '1,x'"),
        ("balance", 2, "class_weights: expected balanced or a list, each a number above 0, received 'balance'"),
    ],
)
def test_wrong_weights_of_classes(train, words, code, message):
    found, _, err = train("--class-weights", words)
    assert found == code and message in err


def test_recipes_are_listed(command):
    code, out, err = command("train", "--recipe", "list")
    assert (code, err) == (0, "") and {"digits", "lenet"} <= set(out.split())
    lines = out.splitlines()
    assert lines[0].split() == ["recipe", "model", "parameters", "accuracy", "time", "description"]
    assert len(lines) == 1 + len(recipe_names())


def test_a_recipe_is_listed_with_what_was_measured(command, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "_RECIPES", tmp_path)
    measured = "[measured]\ntest_accuracy = 0.7512\nseconds = 150.0\nparameters = 65886\n"
    (tmp_path / "old.toml").write_text(f'model = "lenet"\ndescription = "The first one."\n{measured}')
    (tmp_path / "fresh.toml").write_text('model = "vgg"\n')
    _, out, _ = command("train", "--recipe", "list")
    rows = [line.split(maxsplit=6) for line in out.splitlines()[1:]]
    assert rows[0] == ["fresh", "vgg", "-", "-", "-"]
    assert rows[1] == ["old", "lenet", "65,886", "75.12%", "2", "min", "The first one."]


def test_the_help_has_every_option_under_its_heading(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = command("train", "--help")
    for field in fields(Config):
        assert f"--{field.name.replace('_', '-').removesuffix('-options')}" in out
    headings = [word for word in ("Run", "Data", "Model", "Optimisation", "Augmentation") if f"\n{word}:\n" in out]
    assert len(headings) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("relu_logit=true", "model lenet: .*relu_logit"),
        ("relu_logits", "model_option: expected NAME=VALUE as depth=20, received 'relu_logits'"),
        ("relu_logits=[1", r"model_option: expected a TOML value for relu_logits, received '\[1'"),
    ],
)
def test_a_wrong_option_of_the_model(train, words, message):
    code, out, err = train("--model-option", words)
    assert (code, out) == (2, "") and re.fullmatch(f"error: {message}.*\n", err)
