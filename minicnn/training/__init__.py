"""Training: configuration and recipes, the loop, evaluation, metrics, checkpoints and shipped weights."""

from minicnn.training.config import Config, RecipeCard, recipe, recipe_card, recipe_names
from minicnn.training.divergence import TrainingError
from minicnn.training.evaluation import Evaluation, evaluate
from minicnn.training.trainer import Trainer

__all__ = [
    "Config",
    "Evaluation",
    "RecipeCard",
    "Trainer",
    "TrainingError",
    "evaluate",
    "recipe",
    "recipe_card",
    "recipe_names",
]
