"""Replay: run the programs of the machine, and between them what is called from Python."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minicnn.compile.encode import Encoding
from minicnn.compile.lower import Node, Region
from minicnn.compile.record import Live, Program, Value
from minicnn.compile.report import flop, graph, listing
from minicnn.tensor import Tensor


class Plan(Encoding):
    """A recorded run, ready to be repeated on other inputs of the same shapes.

    Attributes:
        steps: what a replay calls, in order; programs: those of the machine among them, int64 (instructions, WIDTH).
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.environment: dict[Value, Any] = {}
        for value, region in self.regions.items():
            self.environment[value] = self._view(region)
        self.steps: list[Callable[[], None]] = []
        self.programs: list[np.ndarray] = []
        self.context = self.machine.Context()
        steps: dict[int, list[Any]] = {}
        for node in self.nodes:
            if node.kind != "same":
                steps.setdefault(node.phase, []).extend(self._encoded(node))
        images = self.count * self.machine.LANES if self.lanes == 1 else self.batch  # the machine counts in its lanes
        for phase in sorted(steps):
            if phase % 2:
                self.steps.append(self._runner(np.array(steps[phase], dtype=np.int64), images))
            else:
                self.steps += steps[phase]
        self.table = np.array(self._table, dtype=np.int64)
        numbers = np.array(self._numbers, dtype=np.float32)
        labels = np.zeros(0, dtype=np.int64) if self.direct[1] is None else self.direct[1].array
        self.context.bind(self.memory, self.room, self.table, numbers, labels)

    def _runner(self, program: np.ndarray, count: int) -> Callable[[], None]:
        self.programs.append(program)
        return self.context.runner(program, count)

    def _encoded(self, node: Node) -> list[Any]:
        """Return the rows of the machine's program, or the call, for a node."""
        if node.kind in self.machine.POINTWISE:
            return [self._pointwise(node.kind, **node.options)]
        encoded = getattr(self, "_" + node.kind)(**node.options)
        return encoded if node.kind in ("products", "weight_gradient", "reshape") else [encoded]

    # One method a kind of node that Python calls

    def _call(self, call: Any) -> Callable[[], None]:
        environment = self.environment
        if call.kernel == "inspect":
            seen, action = call.arguments
            return lambda: action(environment.get(seen, seen.array))
        kernel = getattr(self.program.backend.kernels, call.kernel)
        arguments = [self._fixed(argument) for argument in call.arguments]
        late = [i for i, argument in enumerate(arguments) if isinstance(argument, Value | Live | list | tuple)]

        def value(argument: Any) -> Any:
            if isinstance(argument, Value):
                return environment.get(argument, argument.array)
            if isinstance(argument, list | tuple):
                return type(argument)(value(a) for a in argument)
            return argument.value if isinstance(argument, Live) else argument

        def run() -> None:
            now = arguments.copy()
            for i in late:
                now[i] = value(arguments[i])
            result = kernel(*now)
            if call.outputs:
                results = result if isinstance(result, tuple) else (result,)
                environment.update(zip(call.outputs, results, strict=False))

        return run

    def _fixed(self, argument: Any) -> Any:
        """The array of a Value that has the same in every replay, else the argument as it is."""
        if isinstance(argument, Value) and argument not in self.program.inputs:
            if argument in self.regions:
                return self.environment[argument]
            return argument.array if argument.call is None else argument
        return argument

    def _sgd_steps(self, calls: list[Any]) -> Callable[[], None]:
        arrays = [[self._fixed(value) for value in call.arguments[:3]] for call in calls]
        addresses = np.array([[0 if a is None else a.ctypes.data for a in row] for row in arrays], dtype=np.int64)
        sizes = np.array([row[0].size for row in arrays], dtype=np.int64)
        numbers = np.empty((len(calls), 5), dtype=np.float32)
        take = self.machine.sgd_steps(addresses, sizes, numbers, calls[0].arguments[-1])

        def run() -> None:
            for row, call in zip(numbers, calls, strict=True):
                options = (a.value if isinstance(a, Live) else a for a in call.arguments[3:8])
                first, lr, momentum, dampening, weight_decay = options
                row[:] = first, lr, momentum, 1 - dampening, weight_decay
            take()

        return run

    def _load(self, source: Value, region: Region) -> Callable[[], None]:
        view = self._view(region)
        return lambda: np.copyto(view, self.environment.get(source, source.array))

    def _reduce(self, partial: Region, region: Region) -> Callable[[], None]:
        parts, out = self._view(partial), self._view(region)

        def run() -> None:
            np.add.reduce(parts, axis=0, out=out)

        return run

    def _filters(self, source: Value, region: Region) -> Callable[[], None]:
        points = region.shape[0]
        matrix, out = self.machine.FILTERS[points], self._view(region).reshape(points, -1)

        def run() -> None:
            weight = self.environment.get(source, source.array)
            np.matmul(matrix, weight.reshape(-1, matrix.shape[1]).T, out=out)

        return run

    def _statistics(self, partial: Region, out: tuple[Region, Region], pixels: int) -> Callable[[], None]:
        """Mean and variance of the batch from those of its blocks (Chan et al., 1979)."""
        parts, mean, var = self._view(partial), self._view(out[0]), self._view(out[1])
        values = np.minimum(self.lanes, self.batch - np.arange(self.count) * self.lanes) * pixels
        shares = values / values.sum()

        def run() -> None:
            means = parts[:, 0].astype(np.float64)
            middle = shares @ means
            mean[...] = middle
            var[...] = parts[:, 1].sum(axis=0, dtype=np.float64) / values.sum() + shares @ (means - middle) ** 2

        return run

    def _affine_terms(self, values: list[Value | None], out: Region) -> Callable[[], None]:
        """Batch norm as p x + q."""
        scale, offset = self._view(out)

        def run() -> None:
            mean, inverse_std, weight, bias = self._arrays(values)
            scale[...] = inverse_std if weight is None else inverse_std * weight
            np.multiply(mean, scale, out=offset)
            np.subtract(0 if bias is None else bias, offset, out=offset)

        return run

    def _norm_terms(
        self, partial: Region, values: list[Value | None], out: list[Region], count: int | None
    ) -> Callable[[], None]:
        """The gradient of batch norm as p gy + q x + r, and those for weight and bias; count: None outside training."""
        parts = self._view(partial)
        (p, q, r), gweight, gbias = (self._view(region) for region in out)

        def run() -> None:
            mean, inverse_std, weight = self._arrays(values)
            np.add.reduce(parts[:, 0], axis=0, out=gbias)
            np.add.reduce(parts[:, 1], axis=0, out=gweight)
            np.multiply(gweight, inverse_std, out=gweight)
            p[...] = inverse_std if weight is None else inverse_std * weight
            share = np.float32(0 if count is None else -1 / count)
            np.multiply(p * inverse_std, gweight * share, out=q)
            np.subtract(p * gbias * share, q * mean, out=r)

        return run

    def _arrays(self, values: list[Value | None]) -> list[Any]:
        return [None if v is None else self.environment.get(v, v.array) for v in values]

    def _matrices(self, seen: Region, made: Region, sums: Region) -> Callable[[], None]:
        """sums[p] = made[p] seen[p] for 16 positions; rows of the result are the blocks of a small program."""
        _, rows, inputs = sums.shape
        _, outputs, length = made.shape
        shape, high, wide = self.machine.tile_for_matrix(outputs, inputs // self.lanes)
        columns = self._offsets(np.arange(0, inputs, self.lanes), wide)
        steps, places = self._offsets(np.arange(length) * inputs), self._offsets(np.arange(length))
        lines = [
            self._line(
                "products",
                [
                    (sums.at + p * rows * inputs, high * inputs),
                    (made.at + p * outputs * length, high * length),
                    (seen.at + p * length * inputs, 0),
                ],
                shape, inputs, length, columns, columns, places, steps, length, inputs // self.lanes, high, self.zeros,
                self._number(-np.inf),
            )
            for p in range(16)
        ]  # fmt: skip
        return self._runner(np.array(lines, dtype=np.int64), rows // high * self.lanes)

    def _unfilter(self, sums: Region, region: Region) -> Callable[[], None]:
        """The gradient of a filter from that of its transform, summed over the parts."""
        parts, out = self._view(sums), self._view(region)
        points, outputs = sums.shape[0], out.shape[0]
        matrix = self.machine.FILTERS[points]
        taps = out.reshape(-1, matrix.shape[1])

        def run() -> None:
            total = parts.sum(axis=0) if sums.parts else parts
            np.matmul(total[:, :outputs].reshape(points, -1).T, matrix, out=taps)

        return run

    def _matrix(self, gy: Region, x: Region, region: Region) -> Callable[[], None]:
        """gy^T x: rows of the result are the blocks of a small program."""
        outputs, inputs = region.shape
        high, wide = self.machine.TILES[0]
        columns = [
            *range(0, inputs - self.lanes + 1, self.lanes),
            *([inputs - self.lanes] if inputs % self.lanes else []),
        ]
        line = self._line(
            "products",
            [(region.at, high * inputs), (gy.at, high), (x.at, 0)],
            0,
            inputs,
            1,
            self._offsets(columns, wide),
            self._offsets(columns, wide),
            self._offsets(np.arange(self.batch) * outputs),
            self._offsets(np.arange(self.batch) * inputs),
            self.batch,
            len(columns),
            high,
            self.zeros,
            self._number(-np.inf),
        )
        return self._runner(np.array([line], dtype=np.int64), -(-outputs // high) * self.lanes)

    # Replay

    def __call__(self, *arrays: Any) -> Any:
        """Run on arrays of the recorded shapes and dtypes; return the results as new tensors."""
        for value, array in zip(self.program.inputs, arrays, strict=True):
            if value is self.direct[0]:
                self.environment[value] = images = np.require(array, requirements=["C", "W"])
                self.context.feed(images)
            else:
                np.copyto(value.array, array)
        for action, _ in self.program.before:
            action()
        for place, key in self.keys:
            self.table[place] = np.array(key.value if isinstance(key, Live) else key, dtype=np.uint64).view(np.int64)
        try:
            for step in self.steps:
                step()
        except BaseException:
            self.program.undo()
            raise
        results = [Tensor(np.array(self.environment.get(v, v.array))) for v in self.program.outputs]
        return results[0] if self.program.single else tuple(results)

    def __repr__(self) -> str:
        return listing(self)

    def to_dot(self) -> str:
        """Return the program as a graph in the DOT language: nodes in boxes, a cluster for each phase."""
        return graph(self)

    def flop(self) -> int:
        """Return the floating-point operations of a replay in convolutions and linear layers; 2 a multiply-add."""
        return flop(self)
