"""Optimizers, learning-rate schedules and gradient clipping, spelled as in ``torch.optim``."""

from minicnn.optim import schedules
from minicnn.optim.adam import Adam, AdamW
from minicnn.optim.clip import clip_grad_norm_, clip_grad_value_
from minicnn.optim.optimizer import Optimizer
from minicnn.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_", "clip_grad_value_", "schedules"]
