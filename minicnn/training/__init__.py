"""Training: fit, configuration and recipes, the loop, evaluation, metrics, checkpoints and shipped weights."""

from minicnn.training.config import Config, RecipeCard, recipe, recipe_card, recipe_names
from minicnn.training.divergence import TrainingError
from minicnn.training.evaluation import Evaluation, evaluate, predict
from minicnn.training.fit import fit
from minicnn.training.history import History
from minicnn.training.loop import Loop, StepInfo
from minicnn.training.options import TrainingOptions
from minicnn.training.preprocessing import Preprocessing
from minicnn.training.trainer import Trainer
from minicnn.training.weights import load, save

__all__ = [
    "Config",
    "Evaluation",
    "History",
    "Loop",
    "Preprocessing",
    "RecipeCard",
    "StepInfo",
    "Trainer",
    "TrainingError",
    "TrainingOptions",
    "evaluate",
    "fit",
    "load",
    "predict",
    "recipe",
    "recipe_card",
    "recipe_names",
    "save",
]
