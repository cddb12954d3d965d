"""The wider networks: as many parameters as their PyTorch twins are published with, and they learn."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, models, optim
from minicnn.models.resnet import BasicBlock, Bottleneck, Projection, ResNet, Subsample
from minicnn.models.vgg import VGG


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vgg", 308_394),
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet56", 853_018),
    ],
)
def test_parameters(name, parameters):
    assert sum(p.numel() for p in models.create(name).parameters()) == parameters


@pytest.mark.parametrize(
    "make",
    [
        lambda: VGG(4, (4, 6), 0.1),
        lambda: ResNet(4, BasicBlock, (1, 1), (4, 6), Subsample),
        lambda: ResNet(4, Bottleneck, (1, 1), (4, 6), Projection),
    ],
)
def test_a_narrow_one_learns_a_batch(make):
    minicnn.manual_seed(0)
    model, rng = make(), np.random.default_rng(0)
    images, labels = Tensor(rng.standard_normal((16, 3, 32, 32), dtype=np.float32)), np.arange(16) % 4
    optimizer, losses = optim.Adam(model.parameters(), 0.01), []
    for _ in range(40):
        logits = model(images)
        assert logits.shape == (16, 4)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
