"""What is true of a kernel on every backend, declared once: above its function in the reference.

    @kernel(like_first)
    def relu(x): ...

An argument or an output may be anything that has the ``shape`` (for dtypes and bytes also the ``dtype``) of an array.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
Work = Callable[[Sequence[Any], Sequence[Any]], int]
"""From arguments and outputs to floating-point operations, or to bytes."""


class Slot(int):
    """An operand of a step of the kernel ``pointwise``: one of its arrays, or behind them the result of a step."""


class Result(NamedTuple):
    """Shape and dtype of what a kernel returns."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Facts:
    """The declaration of a kernel.

    Attributes:
        parameters: their names.
        shape, dtype: of the result, as functions of the arguments, which return a list where there are several results.
            shape is None where there is none, or where the values of an index decide; dtypes hold if the arrays that
            come first are of floats.
        writes: positions of the arguments that it edits in place, arrays or lists of them. It returns nothing then,
            unless a shape is declared.
        consumes: position of the gradient that a step of an optimizer uses up.
        view: whether the result may lie in the memory of the first argument.
        number: whether the results are Python numbers.
        flop: floating-point operations, 2 a multiply-add; None of a kernel that memory bounds.
        bytes: read and written, each array once, edited ones twice; 0 of a view.
    """

    parameters: tuple[str, ...]
    shape: Callable[..., Any] | None
    dtype: Callable[..., Any]
    writes: tuple[int, ...]
    consumes: tuple[int, ...]
    view: bool
    number: bool
    flop: Work | None
    bytes: Work

    def outputs(self, *arguments: Any) -> list[Result]:
        """Return the shape and the dtype of each result, where they are declared."""
        if self.shape is None:
            return []
        shapes, dtypes = self.shape(*arguments), self.dtype(*arguments)
        shapes = shapes if isinstance(shapes, list) else [shapes]
        dtypes = dtypes if isinstance(dtypes, list) else [dtypes] * len(shapes)
        return [Result(tuple(s), np.dtype(d)) for s, d in zip(shapes, dtypes, strict=True)]


_FACTS: dict[str, Facts] = {}


def facts(name: str) -> Facts:
    """Return the declaration of the kernel ``name``."""
    return _FACTS[name]


def kernel(
    shape: Callable[..., Any] | None = None,
    dtype: Callable[..., Any] | str | None = None,
    *,
    writes: str = "",
    consumes: str = "",
    view: bool = False,
    number: bool = False,
    flop: Work | None = None,
    bytes: Work | None = None,
) -> Callable[[Function], Function]:
    """Declare a kernel: :class:`Facts`, with parameters by name; ``dtype`` defaults to that of the arguments."""

    def declare(function: Function) -> Function:
        names = tuple(inspect.signature(function).parameters)
        edited, used_up = (tuple(map(names.index, which.split())) for which in (writes, consumes))

        def each_once(arguments: Sequence[Any], outputs: Sequence[Any]) -> int:
            return 0 if view else nbytes([*arguments, *outputs, *(arguments[i] for i in edited)])

        _FACTS[function.__name__] = Facts(
            parameters=names,
            shape=shape,
            dtype=_dtype_of_floats if dtype is None else (lambda *_: dtype) if isinstance(dtype, str) else dtype,
            writes=edited,
            consumes=used_up,
            view=view,
            number=number,
            flop=flop,
            bytes=bytes or each_once,
        )
        return function

    return declare


# Shapes and work that several kernels share


def like_first(x: Any, *_: Any) -> tuple[int, ...]:
    """The shape of the first argument."""
    return x.shape


def broadcast(a: Any, b: Any) -> tuple[int, ...]:
    """The shape of two arrays, or of an array and a number, together."""
    return np.broadcast_shapes(*(getattr(x, "shape", ()) for x in (a, b)))


def products(arguments: Sequence[Any], outputs: Sequence[Any]) -> int:
    """FLOP of a layer with a weight (O, ...), its second argument: each output takes one of the O rows."""
    return _multiply_adds(outputs[0], arguments[1])


def products_to_input(arguments: Sequence[Any], outputs: Sequence[Any]) -> int:
    """FLOP of the gradient for its input, from gy and weight."""
    return _multiply_adds(arguments[0], arguments[1])


def products_to_weight(arguments: Sequence[Any], outputs: Sequence[Any]) -> int:
    """FLOP of the gradient for its weight, from gy."""
    return _multiply_adds(arguments[0], outputs[0])


def nbytes(values: Iterable[Any]) -> int:
    """Bytes of all arrays in a nest of arguments."""
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays_in(values))


def arrays_in(values: Iterable[Any]) -> Iterator[Any]:
    """All arrays in a nest of arguments."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from arrays_in(value)
        elif hasattr(value, "dtype") and not isinstance(value, type):  # np.float32 has one too
            yield value


def is_float(array: Any) -> bool:
    """Whether the elements of an array are floating-point numbers."""
    return array.dtype.kind == "f"


def _dtype_of_floats(*arguments: Any) -> np.dtype:
    return np.result_type(*(a.dtype for a in arrays_in(arguments) if is_float(a)))


def _multiply_adds(y: Any, weight: Any) -> int:
    return 2 * math.prod(y.shape) * math.prod(weight.shape[1:])
