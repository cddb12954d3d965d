"""OpenVINO's side of the cases: inference on the CPU in float32, for the shortest time of one request."""

import os
from typing import Any

import openvino

from cases import batch
from worker import Workload


def build(case: str, batch_size: int, backend: str, onnx: str) -> Workload:
    """One task, "step": an inference of the model in the file ``onnx``."""
    options = {
        "INFERENCE_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
        "INFERENCE_PRECISION_HINT": "f32",  # by default bfloat16 where the processor has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.compile_model(onnx, "CPU", options).create_infer_request()
    x = batch(batch_size)[0]

    def infer() -> Any:
        return request.infer(x, share_inputs=True, share_outputs=True)

    return Workload({"step": infer}, facts={"logits": infer()[0][:8].tolist()})
