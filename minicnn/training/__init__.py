"""Training: configuration and recipes, the loop, evaluation, metrics, checkpoints and shipped weights."""

from minicnn.training.config import Config, recipe, recipe_names
from minicnn.training.evaluation import Evaluation, evaluate
from minicnn.training.trainer import Trainer, TrainingError

__all__ = ["Config", "Evaluation", "Trainer", "TrainingError", "evaluate", "recipe", "recipe_names"]
