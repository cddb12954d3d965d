"""Small pictures, a small network, and what a fit of it gives, for the tests of fit and of what follows it."""

import numpy as np

import minicnn
from minicnn import nn
from minicnn.training import fit

QUIET = {"progress": False, "epochs": 2, "batch_size": 16}


def pictures(n=60, shape=(1, 8, 6), classes=3, seed=0):
    """uint8 (n, *shape) of so many classes, each brighter than the one before, and int64 labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(0, 60, (n, *shape)) + 60 * y.reshape(-1, *[1] * len(shape))
    return x.astype(np.uint8), y


def network(channels=1, size=(8, 6), classes=3, dropout=0.0):
    minicnn.manual_seed(1)
    layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(4 * (size[0] // 2) * (size[1] // 2), classes))


def bits(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def without_times(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history]


def fitted_bits(x, y, validation=0.2, **options):
    model = network(**{k: options.pop(k) for k in ("channels", "classes", "dropout") if k in options})
    history = fit(model, (x, y), validation, **{**QUIET, **options})
    return bits(model), without_times(history)


X, Y = pictures(12)
