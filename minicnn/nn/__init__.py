"""Layers and the Module that holds them, spelled as in ``torch.nn``."""

from minicnn.nn import init
from minicnn.nn.activation import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from minicnn.nn.attention import MultiheadAttention
from minicnn.nn.container import ModuleList, Sequential
from minicnn.nn.conv import Conv2d
from minicnn.nn.linear import Flatten, Identity, Linear
from minicnn.nn.loss import CrossEntropyLoss, MSELoss
from minicnn.nn.module import Module, Parameter
from minicnn.nn.normalization import BatchNorm1d, BatchNorm2d, Dropout, LayerNorm
from minicnn.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d

__all__ = [
    "ELU", "GELU", "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Conv2d", "CrossEntropyLoss",
    "Dropout", "Flatten", "Identity", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "MSELoss", "MaxPool2d",
    "Module", "ModuleList", "MultiheadAttention", "Parameter", "ReLU", "Sequential", "Sigmoid", "Softmax", "Tanh",
    "init",
]  # fmt: skip
