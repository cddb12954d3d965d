"""ONNX Runtime's side of the cases: inference on the CPU, with its default optimisations of the graph."""

import os
from typing import Any

import onnxruntime

from cases import batch
from worker import Workload


def build(case: str, batch_size: int, backend: str, onnx: str) -> Workload:
    """One task, "step": an inference of the model in the file ``onnx``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: batch(batch_size)[0]}

    def infer() -> list[Any]:
        return session.run(None, inputs)

    return Workload({"step": infer}, facts={"logits": infer()[0][:8].tolist()})
