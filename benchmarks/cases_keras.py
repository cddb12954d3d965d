"""Keras' side of the cases, on TensorFlow and the CPU, as its users write it.

Pictures are (N, H, W, C). ``train_on_batch`` and ``predict_on_batch`` run a graph that their first call traces. XLA is
left as ``compile`` sets it by default: off without a GPU, where it makes training slower.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from cases import CASES, LEARNING_RATE, MOMENTUM, SGEMM, batch, initial
from worker import Workload


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop what is written to stderr: TensorFlow greets before it reads how much it shall say."""
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
for pool in ("INTRAOP", "INTEROP"):
    os.environ[f"TF_NUM_{pool}_THREADS"] = os.environ.get("OMP_NUM_THREADS", "0")
with _silence():
    import keras
    from keras import layers


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
    """Two tasks: "step", an SGD step or an inference of the case's model, and "sgemm"."""
    images, labels = batch(batch_size)
    x, target = (keras.ops.convert_to_tensor(array) for array in (images.transpose(0, 2, 3, 1), labels))
    model = MODELS[CASES[case].model]()
    _start_alike(model)
    facts = {"logits": model(x[:8], training=False).numpy().tolist()}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE, MOMENTUM), loss)

    def train() -> object:
        return model.train_on_batch(x, target)

    def infer() -> object:
        return model.predict_on_batch(x)

    tasks = {"step": train if CASES[case].train else infer}
    tasks["sgemm"] = lambda: keras.ops.matmul(_square(), _square())
    return Workload(tasks, facts=facts)


def _start_alike(model: keras.Model) -> None:
    """Give every parameter the values of its twins, whose convolutions are (O, C, KH, KW) and pictures (N, C, H, W)."""
    position = 0
    sides = (1, 1)  # height and width of what the layer before has flattened
    for layer in model.layers:
        for variable in layer.trainable_variables:
            *inputs, outputs = variable.shape
            if inputs:  # (KH, KW, C, O), or (H * W * C, O)
                window = inputs[:2] if len(inputs) == 3 else sides
                shape = (outputs, math.prod(inputs) // math.prod(window), *window)
                value = initial(position, "weight", shape).transpose(2, 3, 1, 0).reshape(variable.shape)
            else:
                value = initial(position, "bias" if variable.name in ("bias", "beta") else "weight", (outputs,))
            variable.assign(value)
            position += 1
        sides = layer.input.shape[1:3] if isinstance(layer, layers.Flatten) else (1, 1)
