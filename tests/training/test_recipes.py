"""Recipes: sets of options by name."""

import pytest

from minicnn import models
from minicnn.training import config, recipe, recipe_card, recipe_names


def test_every_recipe_is_a_valid_configuration():
    assert {"lenet", "digits"} <= set(recipe_names())
    for name in recipe_names():
        assert recipe(name).model in models.names()


def test_overrides_replace_fields():
    assert recipe("lenet", epochs=3, seed=9).epochs == 3
    assert recipe("lenet", epochs=3).lr == recipe("lenet").lr
    with pytest.raises(ValueError, match="epochs"):
        recipe("lenet", epochs=0)


def test_a_mirrored_digit_is_another_digit():
    assert recipe("digits").flip == 0


def test_what_a_recipe_may_hold(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="recipe: expected one of .*, received 'digit'; did you mean 'digits'?"):
        recipe("digit")
    monkeypatch.setattr(config, "_RECIPES", tmp_path)
    (tmp_path / "odd.toml").write_text("epochs = 2\ncolour = 1\n")
    with pytest.raises(ValueError, match="recipe odd: unknown fields colour"):
        recipe("odd")
    (tmp_path / "known.toml").write_text(
        'description = "A trial."\nepochs = 2\n[model_options]\nrelu_logits = true\n[measured]\ntest_accuracy = 0.5\n'
    )
    card = recipe_card("known")
    assert (card.name, card.description, card.measured) == ("known", "A trial.", {"test_accuracy": 0.5})
    assert card.config == recipe("known") and recipe("known").model_options == {"relu_logits": True}
    (tmp_path / "steps.toml").write_text('schedule = "multi-step"\nmilestones = [3, 5]\n')
    assert recipe("steps").milestones == (3, 5)
    (tmp_path / "half.toml").write_text('precision = "bf16"\n')
    assert (recipe("half").precision, recipe("steps").precision) == ("bf16", "float32")
