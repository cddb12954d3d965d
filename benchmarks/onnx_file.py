"""The file that ONNX Runtime and OpenVINO read: PyTorch's model of a case, exported for one size of batch."""

import logging
import warnings

import torch

from cases import CASES, batch
from cases_torch import make
from worker import Workload


def build(case: str, batch_size: int, file: str) -> Workload:
    """Write ``file``; there are no tasks."""
    x = torch.from_numpy(batch(batch_size)[0])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that the models do not need
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's of its own
        torch.onnx.export(make(CASES[case].model).eval(), (x,), file, dynamo=True, external_data=False, verbose=False)
    return Workload({})
