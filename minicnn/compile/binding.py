"""Binding: what Python does for a node, as a call on arrays that stay where they are."""

import mmap
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from minicnn.compile.graph import Graph, Node, Region
from minicnn.compile.program import PerReplay, Value

Environment = dict[Any, Any]
"""What Values (their arrays) and PerReplays (their numbers) are in this replay; of states it is their own array."""


_LARGE = 1 << 21
"""Bytes of a huge page of memory."""


def aligned_zeros(length: int) -> np.ndarray:
    """Return float32 (length,), zeros, from an address that 64 divides.

    Large ones are pages of their own, huge ones where the system has them: they go back to it as soon as nobody has
    the array, which the C library would keep for others, and a child process gets a copy.

    Raises:
        MemoryError: there is not so much.
    """
    if 4 * length >= _LARGE and hasattr(mmap, "MAP_ANONYMOUS"):
        try:
            pages = mmap.mmap(-1, 4 * length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"Unable to allocate {4 * length / 2**20:,.0f} MiB for a compiled function") from error
        with suppress(AttributeError, OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(pages, dtype=np.float32)
    array = np.zeros(length + 16, dtype=np.float32)
    return array[-array.ctypes.data % 64 // 4 :][:length]


def _array(environment: Environment, argument: Any) -> Any:
    """Return what an argument of a call is in this replay."""
    if isinstance(argument, Value):
        return environment.get(argument, argument.array)
    if isinstance(argument, list | tuple):
        return type(argument)(_array(environment, a) for a in argument)
    return environment[argument] if isinstance(argument, PerReplay) else argument


class Binding:
    """One method a kind of node that Python calls: it returns the call.

    The calls keep neither this nor the plan alive, so that both are freed as soon as they are dropped.

    Args:
        view: from a region to its array.
        environment: what the calls read and write; it has the arrays of Values that have a region, and of constants.
    """

    def __init__(
        self, graph: Graph, machine: Any, view: Callable[[Region], np.ndarray], environment: Environment
    ) -> None:
        self.graph, self.machine, self.view, self.environment = graph, machine, view, environment

    def step(self, node: Node) -> Callable[[], None]:
        """Return the call that does what a node says."""
        operands = {"call": node.call} if node.kind == "call" else node.operands
        return getattr(self, node.kind)(**operands)

    def array(self, source: Value | Region) -> Callable[[], Any]:
        """Return what gives the array of a source in this replay."""
        if isinstance(source, Region):
            view = self.view(source)
            return lambda: view
        environment = self.environment
        return lambda: environment.get(source, source.array)

    def fixed(self, argument: Any) -> Any:
        """Return the array of a Value that has the same in every replay, else the argument as it is."""
        if not isinstance(argument, Value) or argument in self.graph.program.inputs:
            return argument
        if argument in self.environment:  # it has a region, or is a constant
            return self.environment[argument]
        return argument.array if argument.call is None else argument

    def call(self, call: Any) -> Callable[[], None]:
        """A kernel on arrays."""
        environment = self.environment
        if call.kernel == "check_on_replay":
            seen, action = call.arguments
            return lambda: action(_array(environment, seen))
        kernel = getattr(self.graph.program.backend.kernels, call.kernel)
        arguments = [self.fixed(argument) for argument in call.arguments]
        outputs = call.outputs
        late = [i for i, argument in enumerate(arguments) if isinstance(argument, Value | PerReplay | list | tuple)]

        def run() -> None:
            now = arguments.copy()
            for i in late:
                now[i] = _array(environment, arguments[i])
            result = kernel(*now)
            if outputs:
                results = result if isinstance(result, tuple) else (result,)
                environment.update(zip(outputs, results, strict=False))

        return run

    def sgd_steps(self, calls: list[Any], **_: Any) -> Callable[[], None]:
        """The steps of SGD for several parameters."""
        environment = self.environment
        arrays = [[self.fixed(value) for value in call.arguments[:3]] for call in calls]
        addresses = np.array([[0 if a is None else a.ctypes.data for a in row] for row in arrays], dtype=np.int64)
        sizes = np.array([row[0].size for row in arrays], dtype=np.int64)
        numbers = np.empty((len(calls), 5), dtype=np.float32)
        take = self.machine.sgd_steps(addresses, sizes, numbers, calls[0].arguments[-1])

        options = [call.arguments[3:8] for call in calls]
        now = environment.get  # of a PerReplay its number; of a number itself

        def run() -> None:
            numbers[...] = [
                (
                    now(first, first),
                    now(lr, lr),
                    now(momentum, momentum),
                    1 - now(dampening, dampening),
                    now(decay, decay),
                )
                for first, lr, momentum, dampening, decay in options
            ]
            take()

        return run

    def load(self, source: Value, region: Region) -> Callable[[], None]:
        """A copy of an array."""
        view, array = self.view(region), self.array(source)
        if region.shape != source.shape:  # a list of channels, filled up to whole vectors
            view = view[: source.shape[0]]
        return lambda: np.copyto(view, array())

    def sums(self, sources: list[Value | Region], regions: list[Region], **_: Any) -> Callable[[], None]:
        """Copies of tensors, and sums over parts of the batch."""
        arrays = [self.view(source) if isinstance(source, Region) else source.array for source in sources]
        parts = [source.parts if isinstance(source, Region) else 1 for source in sources]
        rows = zip(arrays, parts, map(self.view, regions), strict=True)
        return self.machine.sums([(array.reshape(count, -1), out) for array, count, out in rows])

    def filters(self, source: Value | Region, region: Region, adjoint: bool) -> Callable[[], None]:
        """The transform of a weight; ``adjoint``: of its filters turned by 180 degrees, input channels first."""
        matrix, out = self.machine.FILTERS[region.shape[0]], self.view(region)
        weight, refresh = self._contiguous(source)
        transform = self.machine.filter_points(matrix, weight.reshape(len(weight), -1, matrix.shape[1]), out, adjoint)

        def run() -> None:
            refresh()
            transform()

        return run

    def _contiguous(self, source: Value | Region) -> tuple[np.ndarray, Callable[[], None]]:
        """Return a contiguous array of a source that stays where it is, and what writes the source to it anew."""
        array = self.view(source) if isinstance(source, Region) else self.fixed(source)
        if isinstance(array, np.ndarray) and array.flags.c_contiguous and array.flags.aligned:
            return array, lambda: None
        copy, now = np.zeros(source.shape, dtype=np.float32), self.array(source)
        return copy, lambda: np.copyto(copy, now())

    def swapped(self, source: Value | Region, region: Region) -> Callable[[], None]:
        """A weight with its first two axes exchanged."""
        view, array = self.view(region), self.array(source)
        return lambda: np.copyto(view, array().swapaxes(0, 1))

    def paired(self, source: Value, region: Region, adjoint: bool) -> Callable[[], None]:
        """A weight of bfloat16 with two input channels in each element; ``adjoint``: two outputs, inputs first."""
        words, array = self.view(region).view(np.uint32), self.array(source)

        def run() -> None:
            bits = array().view(np.uint32)
            bits = bits.swapaxes(0, 1) if adjoint else bits
            np.right_shift(bits[:, ::2], 16, out=words)
            words[:, : bits.shape[1] // 2] |= bits[:, 1::2] & np.uint32(0xFFFF0000)

        return run

    def in_registers(self, source: Value | Region, region: Region, adjoint: bool) -> Callable[[], None]:
        """A weight in matrix registers, rounded to bfloat16; ``adjoint``: input channels first."""
        out, (weight, refresh) = self.view(region), self._contiguous(source)
        write = self.machine.amx_weight(weight.reshape(*weight.shape[:2], -1), out, adjoint)

        def run() -> None:
            refresh()
            write()

        return run

    def from_registers(self, sums: Region, region: Region) -> Callable[[], None]:
        """The gradient of a weight from that in matrix registers, summed over the parts."""
        parts, out = self.view(sums), self.view(region)
        return self.machine.amx_gathered(parts, out.reshape(*out.shape[:2], -1))

    def scaled(self, source: Value, terms: Region, region: Region) -> Callable[[], None]:
        """A weight (O, ...) times p of a batch norm behind it."""
        (scale, _), array, out = self.view(terms), self.array(source), self.view(region)
        rows, factors = out.reshape(len(out), -1), scale[: len(out), None]

        def run() -> None:
            np.multiply(array().reshape(rows.shape), factors, out=rows)

        return run

    def shifted(self, source: Value | None, terms: Region, outputs: int, region: Region) -> Callable[[], None]:
        """A bias (or none) under p x + q of a batch norm behind it."""
        scale, offset = self.view(terms)[:, :outputs]
        array, out = None if source is None else self.array(source), self.view(region)[:outputs]

        def run() -> None:
            out[...] = offset if array is None else scale * array() + offset

        return run

    def packed(
        self, source: Value | Region, bias: Value | Region | None, groups: int, region: Region
    ) -> Callable[[], None]:
        """A weight (O, C, ...) as vectors of LANES outputs, step by step, and behind it the bias in such vectors."""
        weights, biases = self.array(source), None if bias is None else self.array(bias)
        pack, out = self.machine.pack, self.view(region)
        if out.ndim == 1:
            return lambda: pack(weights(), None if biases is None else biases(), groups, out)

        def run() -> None:  # at each point of a transform
            for weight, packed in zip(weights(), out, strict=True):
                pack(weight, None, groups, packed)

        return run

    def statistics(self, partial: Region, out: tuple[Region, Region], pixels: int) -> Callable[[], None]:
        """Mean and variance of the batch from those of its blocks (Chan et al., 1979)."""
        parts, mean, var = self.view(partial), self.view(out[0]), self.view(out[1])
        lanes, batch, count = self.graph.layout.images, self.graph.program.batch, self.graph.count
        values = np.minimum(lanes, batch - np.arange(count) * lanes) * pixels
        shares = values / values.sum()

        def run() -> None:
            means = parts[:, 0].astype(np.float64)
            middle = shares @ means
            mean[...] = middle
            var[...] = parts[:, 1].sum(axis=0, dtype=np.float64) / values.sum() + shares @ (means - middle) ** 2

        return run

    def affine_terms(self, values: list[Value | None], out: Region) -> Callable[[], None]:
        """Batch norm as p x + q."""
        channels = next(v for v in values if v is not None).shape[0]
        (scale, offset), environment = self.view(out)[:, :channels], self.environment

        def run() -> None:
            mean, inverse_std, weight, bias = (_array(environment, v) for v in values)
            scale[...] = inverse_std if weight is None else inverse_std * weight
            np.multiply(mean, scale, out=offset)
            np.subtract(0 if bias is None else bias, offset, out=offset)

        return run

    def norm_terms(
        self, partial: Region, values: list[Value | None], out: list[Region], count: int | None
    ) -> Callable[[], None]:
        """The gradient of batch norm as p gy + q x + r, and those for weight and bias; count: None outside training."""
        parts, environment = self.view(partial), self.environment
        (p, q, r), gweight, gbias = (self.view(region) for region in out)

        def run() -> None:
            mean, inverse_std, weight = (_array(environment, v) for v in values)
            np.add.reduce(parts[:, 0], axis=0, out=gbias)
            np.add.reduce(parts[:, 1], axis=0, out=gweight)
            np.multiply(gweight, inverse_std, out=gweight)
            p[...] = inverse_std if weight is None else inverse_std * weight
            share = np.float32(0 if count is None else -1 / count)
            np.multiply(p * inverse_std, gweight * share, out=q)
            np.subtract(p * gbias * share, q * mean, out=r)

        return run

    def unfilter(self, sums: Region, region: Region) -> Callable[[], None]:
        """The gradient of a filter from that of its transform, summed over the parts."""
        parts, out = self.view(sums), self.view(region)
        matrix = self.machine.FILTERS[sums.shape[0]]
        parts = parts if sums.parts else parts[None]
        return self.machine.filter_gradient(matrix, parts, len(out), out)
