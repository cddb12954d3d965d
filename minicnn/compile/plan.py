"""Plan: a recorded run laid out and encoded, which any number of calls replay, each in a memory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from minicnn.autograd import Node as TapeNode
from minicnn.autograd import is_grad_enabled
from minicnn.compile.binding import aligned_zeros
from minicnn.compile.encode import Code, MachineProgram
from minicnn.compile.profile import Profile, Stopwatch, profiled
from minicnn.compile.program import Program, Value, memory_of
from minicnn.compile.report import Line, dot, lines, summary
from minicnn.compile.run import Run
from minicnn.nn.module import attributes, structure
from minicnn.recording import Recorded
from minicnn.tensor import Tensor
from minicnn.text import html_table

_PLAIN = int | float | str
"""Attributes of modules that are compared by their value."""


class Plan:
    """A recorded run, ready to be repeated on other inputs of the same shapes. It does not change any more.

    How it is repeated is the affair of a subclass: on arrays of NumPy :class:`MachinePlan`, on those of CuPy
    :class:`~minicnn.compile.device.DevicePlan`.

    Attributes:
        program: the recorded run.
        edits: whether a replay changes arrays that others see; then no two may run at once.
        length: how many float32 of memory a replay needs on the host.
    """

    length = 0

    def __init__(self, program: Program) -> None:
        self.program = program
        self._looked = [gradient for gradient in program.gradients if gradient.looked]
        self._used = [(gradient.tensor, gradient.now) for gradient in program.gradients if gradient.used]
        self._left = [gradient for gradient in program.gradients if not gradient.used]
        self._tapes = [_tape(v) if taped else None for v, taped in zip(program.outputs, program.taped, strict=False)]
        self._written = frozenset(value.memory for value in program.written)
        self.edits = bool(program.written)
        self._edited, self._structure = program.edited(), structure.number
        self._arrays = [(tensor, array) for tensor, array, _ in program.tensors]
        self._wants = [(tensor, wants) for tensor, _, wants in program.tensors if wants is not None]
        for value in [*program.inputs, *(v for call in program.calls for v in call.outputs if v.call is not None)]:
            value.array = None  # of the recorded run: only the shape is looked at from now on

    def bind(self, memory: np.ndarray) -> Any:
        """Return what replays the plan in ``memory``, float32 (length,) from an address that 64 divides.

        It is called with the inputs and the Values to return, and has ``clean``, called after another used the memory.
        """
        raise NotImplementedError

    def refresh(self) -> None:
        """Make anew what is kept from replay to replay and was made of tensors that were edited since."""

    def holds(self) -> bool:
        """Whether what the plan relies on is as it was recorded: arrays of tensors, parts and modes of modules."""
        for tensor, array in self._arrays:
            if tensor._data is not array:
                return False
        for tensor, requires_grad in self._wants:
            if tensor.requires_grad is not requires_grad:
                return False
        now = structure.number
        if now != self._structure:
            if not all(_same(attributes(module), before) for module, before in self.program.modules):
                return False
            self._structure = now
        return True

    def edits_one_of(self, arrays: Sequence[Any]) -> bool:
        """Whether an input lies in memory that a replay edits."""
        return any(memory_of(array) in self._written for array in arrays)

    def replay(self, run: Any, arrays: Sequence[Any]) -> Any:
        """Run on arrays of the recorded shapes and dtypes; return the results as new tensors, and leave gradients.

        Raises:
            RuntimeError: gradients that would be added up, and are used inside, are there already.
        """
        program = self.program
        for gradient in self._looked:
            if gradient.tensor._grad is not None:
                raise RuntimeError(
                    "compile: the function uses gradients to which it would add those of an earlier call; "
                    "call zero_grad inside it, before backward"
                )
        self.refresh()
        try:
            made = iter(run(arrays, program.outputs))
        finally:
            for version in self._edited:
                version.edited()
        results = [Tensor(next(made)) for _ in self._tapes]
        if is_grad_enabled():
            for result, tape in zip(results, self._tapes, strict=True):
                result._node, result.requires_grad = tape, tape is not None
        for tensor, used in self._used:
            tensor._grad = used
        for gradient in self._left:
            now = gradient.now
            if now is not None and isinstance(now._data, Recorded):
                now = Tensor(next(made))
            if gradient.fresh or gradient.tensor._grad is None:
                gradient.tensor._grad = now
            elif now is not None:
                gradient.tensor._accumulate(now._data, owned=True)
        return results[0] if program.single else tuple(results)

    def flop(self) -> int:
        """Return the floating-point operations of a replay in convolutions and matrix products; 2 a multiply-add.

        Also where a transform needs fewer.
        """
        return sum(call.flop() or 0 for call in self.program.calls)

    def listing(self) -> tuple[str, list[Line]]:
        """Return a line about the plan, and those of its steps in order."""
        raise NotImplementedError

    def __repr__(self) -> str:
        head, steps = self.listing()
        return "\n".join([head, *(f"{layer:<22} {' '.join(rest)}".rstrip() for layer, *rest in steps)])

    def _repr_html_(self) -> str:
        head, steps = self.listing()
        return html_table(head, ("layer", "step", "operands"), steps)


class MachinePlan(Plan):
    """A plan for NumPy arrays, laid out and encoded for :mod:`minicnn.backend.cpu.machine`.

    Attributes:
        code: what a replay does.
    """

    def __init__(self, code: Code) -> None:
        super().__init__(code.graph.program)
        self.code, self.length = code, code.allocation.length

    @property
    def machine_programs(self) -> list[np.ndarray]:
        """Those of the machine, int64 (instructions, WIDTH), in order."""
        return [step.rows for step in self.code.steps if isinstance(step, MachineProgram)]

    def bind(self, memory: np.ndarray) -> Run:
        """Return what replays the plan in ``memory``."""
        return Run(self.code, memory)

    def refresh(self) -> None:
        """Make anew what weights alone decide, where these were edited."""
        self.code.constants.refresh()

    def profile(self, *inputs: Any, replays: int = 20) -> Profile:
        """Replay on ``inputs`` and return where the time goes: ``print`` it for a table.

        The replays are real: those of a training step train. No other thread may use the compiled function meanwhile.

        Args:
            inputs: tensors or arrays of the recorded shapes and dtypes.
            replays: how many to time, after one that is not.

        Raises:
            ValueError: inputs of other shapes or dtypes, or fewer than one replay.
            RuntimeError: what the plan relies on has changed; call the compiled function, and profile its new plan.
        """
        arrays = [x._data if isinstance(x, Tensor) else x for x in inputs]
        expected = [(v.shape, v.dtype) for v in self.program.inputs]
        if replays < 1:
            raise ValueError(f"profile: expected at least 1 replay, received {replays}")
        if (received := [(a.shape, a.dtype) for a in arrays]) != expected:
            raise ValueError(f"profile: expected inputs {expected}, received {received}")
        if not self.holds():
            raise RuntimeError("profile: expected the plan that holds, received one of before a change; call anew")
        stopwatch = Stopwatch(self.code)
        run = Run(self.code, aligned_zeros(self.length), stopwatch)
        run.clean()
        self.replay(run, arrays)
        stopwatch.reset()
        for _ in range(replays):
            self.replay(run, arrays)
        return profiled(self.code, stopwatch, replays)

    def listing(self) -> tuple[str, list[Line]]:
        """Return a line about the plan, then what it keeps, and its steps phase by phase."""
        return summary(self.code, self.flop()), lines(self.code)

    def to_dot(self) -> str:
        """Return the program as a graph in the DOT language: nodes in boxes, a cluster for each phase."""
        return dot(self.code)


def _same(now: dict[str, Any], before: dict[str, Any]) -> bool:
    return now.keys() == before.keys() and all(
        value is before[name]
        or (isinstance(value, _PLAIN) and type(value) is type(before[name]) and value == before[name])
        for name, value in now.items()
    )


def _untaped(gy: Any) -> NoReturn:
    """The vector-Jacobian product of what a plan returns."""
    raise RuntimeError(
        "backward: this tensor is the result of a compiled function, whose tape is not kept; put the loss and backward "
        "inside the compiled function, or call the function itself"
    )


_ORIGIN = Tensor(np.zeros((), dtype=np.float32), requires_grad=True)
"""What results with a tape come from, as far as anybody outside can see."""


def _tape(value: Value) -> TapeNode:
    """Return the tape of a result: it lets no gradient through."""
    return TapeNode(Tensor(np.broadcast_to(np.float32(0), value.shape)), (_ORIGIN,), (_untaped,))
