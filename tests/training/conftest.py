"""A small data set and a small model with batch norm and dropout, to train in a moment."""

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import backend, data, models, nn
from minicnn.training import Config, Trainer


class Tiny(nn.Module):
    """Convolution, batch norm, dropout and a linear layer."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(4 * 7 * 7, num_classes)

    def forward(self, input):
        return self.fc(F.flatten(F.relu(self.dropout(self.norm(self.conv(input)))), 1))


@pytest.fixture
def tiny(monkeypatch):
    """Register the small model as "tiny"."""
    monkeypatch.setitem(models._MODELS, "tiny", Tiny)


@pytest.fixture
def splits():
    """65, 20 and 20 random pictures of three classes, which differ in one channel."""
    rng = np.random.default_rng(3)

    def part(n):
        labels = np.arange(n) % 3
        images = rng.integers(0, 200, (n, 3, 32, 32))
        images[np.arange(n), labels] += 55
        return data.Dataset(images.astype(np.uint8), labels, ("red", "green", "blue"), "noise")

    return data.Splits(part(65), part(20), part(20), "noise", (0.4, 0.4, 0.4), (0.25, 0.25, 0.25))


@pytest.fixture
def trainer(splits):
    """Make a trainer: lenet, three batches of 32, 32 and 1 pictures an epoch, unless told otherwise."""

    def make(backend_name="numpy", splits=splits, **options):
        config = Config(**{"epochs": 4, "batch_size": 32, "lr": 0.02, **options})
        return Trainer(config, splits, backend.get(backend_name))

    return make
