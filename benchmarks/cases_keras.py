"""Keras' side of the cases, on TensorFlow and the CPU, as its users write it: channels last, ``compile``, one batch.

``train_on_batch`` and ``predict_on_batch`` run a graph traced at their first call.
"""

import os
import sys
from collections.abc import Callable
from functools import cache

from cases import CASES, LEARNING_RATE, MOMENTUM, SGEMM, batch, initial
from worker import Workload

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
for pool in ("INTRAOP", "INTEROP"):
    os.environ[f"TF_NUM_{pool}_THREADS"] = os.environ["OMP_NUM_THREADS"]

import keras  # noqa: E402 (reads the environment when it is imported)
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402


def lenet() -> keras.Model:
    """The twin of ``minicnn.models.lenet``."""
    return keras.Sequential([
        keras.Input((32, 32, 3)),
        layers.Conv2D(6, 5, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(16, 5, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(128, activation="relu"), layers.Dense(84, activation="relu"), layers.Dense(10),
    ])  # fmt: skip


def vgg() -> keras.Model:
    """The twin of ``minicnn.models.vgg``."""
    stack: list[layers.Layer] = [keras.Input((32, 32, 3))]
    for width, p in ((32, 0.2), (64, 0.3), (128, 0.4)):
        for _ in range(2):
            stack += [layers.Conv2D(width, 3, padding="same", activation="elu")]
            stack += [layers.BatchNormalization(momentum=0.9, epsilon=1e-5)]
        stack += [layers.MaxPooling2D(), layers.Dropout(p)]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(10)])


MODELS: dict[str, Callable[[], keras.Model]] = {"lenet": lenet, "vgg": vgg}


@cache
def _square() -> object:
    """A matrix made at the first use: it does not count among the memory of a step."""
    return keras.ops.ones((SGEMM, SGEMM))


def build(case: str, batch_size: int, backend: str) -> Workload:
    """One task, "step": an SGD step or an inference of the case's model."""
    if CASES[case].model not in MODELS or backend != "numpy":
        print(f"Keras: expected {' or '.join(MODELS)} on the CPU, received {case} on {backend}", file=sys.stderr)
        sys.exit(2)
    images, labels = batch(batch_size)
    x, target = (keras.ops.convert_to_tensor(array) for array in (images.transpose(0, 2, 3, 1), labels))
    model = MODELS[CASES[case].model]()
    _start_alike(model)
    facts = {"logits": model(x[:8], training=False).numpy().tolist()}
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, MOMENTUM), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile={"0": False, "1": True, "auto": "auto"}[os.environ.get("JIT", "auto")],
    )  # fmt: skip
    step = (lambda: model.train_on_batch(x, target)) if CASES[case].train else (lambda: model.predict_on_batch(x))
    return Workload({"step": step, "sgemm": lambda: keras.ops.matmul(_square(), _square())}, facts=facts)


def _start_alike(model: keras.Model) -> None:
    """Give every parameter the values of its twins, whose convolutions are (O, C, KH, KW) and pictures (N, C, H, W)."""
    flattened = None  # (H, W, C) of the pictures whose pixels the next layer takes
    position = 0
    for layer in model.layers:
        if isinstance(layer, layers.Flatten):
            flattened = layer.input.shape[1:]
        for variable in layer.trainable_variables:
            shape = variable.shape
            if len(shape) == 4:  # (KH, KW, C, O)
                value = initial(position, "weight", (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
            elif len(shape) == 2:  # (features, O)
                value = initial(position, "weight", shape[::-1]).T
                if flattened:
                    h, w, c = flattened
                    value = value.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(shape)
                    flattened = None
            else:
                value = initial(position, "bias" if variable.name in ("bias", "beta") else "weight", shape)
            variable.assign(np.ascontiguousarray(value))
            position += 1
