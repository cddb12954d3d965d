"""Device: plans for CuPy arrays. A replay is one CUDA graph, which the device works through without the host.

The first replay calls the kernels one by one, so that they are compiled and memory is there; the second records what
they launch, on a stream of its own and in memory of its own; from then on a replay starts that graph. What differs from
replay to replay is in fixed places on the device: the inputs, and the numbers that a kernel is given
(:func:`minicnn.backend.cuda.live.live`), which are written there before. What cannot be recorded is said, and called
one by one in every replay.

Checks look at their arrays behind the replay, or before it where these are inputs. So where a loss is not finite, the
weights have changed already when it is said.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import numpy as np

from minicnn.compile.plan import Plan
from minicnn.compile.program import Action, Call, PerReplay, Program, Value

_SLOT = np.dtype(np.uint64)
"""What any number of a kernel has room in."""


class DevicePlan(Plan):
    """A recorded run on CuPy arrays."""

    def bind(self, memory: Any) -> DeviceRun:
        """Return what replays the plan, in memory of the device."""
        return DeviceRun(self.program)

    def __repr__(self) -> str:
        lines = [f"plan: a CUDA graph of {len(self.program.calls)} calls, {self.flop() / 1e6:,.1f} MFLOP"]
        for call in self.program.calls:
            ends = (" ".join(f"array{list(v.shape)}" for v in values) for values in (call.reads(), call.outputs))
            lines.append(f"{call.layer:<22} {call.kernel} {' -> '.join(ends)}")
        return "\n".join(lines)


class DeviceRun:
    """The replays of a plan on the device; for one thread at a time.

    They follow each other on a stream of their own, which waits for the caller's before and is waited for behind.

    Attributes:
        graph: the CUDA graph, None as long as there is none.
    """

    def __init__(self, program: Program) -> None:
        self._program, self._xp = program, program.backend.xp
        cuda = self._xp.cuda
        self._pool, self._stream = cuda.MemoryPool(), cuda.Stream(non_blocking=True)
        self._places = [self._xp.empty(value.shape, value.dtype) for value in program.inputs]
        self._arrays: dict[Value, Any] = {}
        self._once, self._calls, self._checks = _sorted(program)
        self._numbers = _Numbers(program, self._calls)
        self._last = _last_reads(self._calls, [*program.outputs, *(check.arguments[0] for check in self._checks)])
        self._done = 0  # replays, up to the second
        self._read_out: Any = None  # when the outputs of the last replay have been copied
        self.graph: Any = None

    def clean(self) -> None:
        """Nothing: no other plan uses this memory."""

    def __call__(self, arrays: Sequence[Any], outputs: Sequence[Value]) -> list[Any]:
        """Replay on arrays of the recorded shapes and dtypes; return copies of the outputs.

        Raises:
            RuntimeError: of CUDA.
            What actions and checks raise.
        """
        inputs = dict(zip(self._program.inputs, arrays, strict=True))
        for check in self._checks:
            if check.arguments[0] in inputs:
                check.arguments[1](inputs[check.arguments[0]])
        current = self._xp.cuda.get_current_stream()
        self._stream.wait_event(current.record())
        if self._read_out is not None:  # by a caller with another stream
            self._stream.wait_event(self._read_out)
        with self._stream, self._xp.cuda.using_allocator(self._pool.malloc):
            self._before(arrays)
            self._replay()
        current.wait_event(self._stream.record())
        for check in self._checks:
            if check.arguments[0] not in inputs:
                check.arguments[1](self._array(check.arguments[0]))
        results = [self._array(value).copy() for value in outputs]
        self._read_out = current.record()
        return results

    def _before(self, arrays: Sequence[Any]) -> None:
        """Do what Python does, and bring what this replay has of its own to its places; nothing, if it fails."""
        done: list[Action] = []
        read: dict[PerReplay, Any] = {}
        try:
            for thing in self._program.before:
                if isinstance(thing, PerReplay):
                    read[thing] = thing.read()
                else:
                    thing.do()
                    done.append(thing)
            self._numbers.write(read)
            for place, array in zip(self._places, arrays, strict=True):
                place[...] = array
        except BaseException:
            for action in reversed(done):
                if action.undo is not None:
                    action.undo()
            raise

    def _replay(self) -> None:
        if self.graph is None and self._done == 1:
            self._record()
        if self.graph is not None:
            self.graph.launch(self._stream)
            return
        if not self._done:
            self._arrays |= zip(self._program.inputs, self._places, strict=True)
            for call in self._once:
                self._do(call)
        self._do_all()
        self._done += not self._done

    def _record(self) -> None:
        """Record the kernels as a graph; or say why not."""
        self._done = 2
        self._stream.begin_capture(mode=self._xp.cuda.runtime.streamCaptureModeRelaxed)
        try:
            self._do_all()
        except Exception as error:
            with suppress(Exception):  # CUDA may have ended it
                self._stream.end_capture()
            warnings.warn(f"compile: no CUDA graph, kernels are called one by one: {error}", stacklevel=2)
        else:
            self.graph = self._stream.end_capture()

    def _do_all(self) -> None:
        for i, call in enumerate(self._calls):
            self._do(call)
            for value in self._last[i]:
                del self._arrays[value]

    def _do(self, call: Call) -> None:
        kernel = getattr(self._program.backend.kernels, call.kernel)
        if call in self._numbers.of:
            arguments = [None if isinstance(a, PerReplay) else self._array(a) for a in call.arguments]
            result = kernel.with_numbers(self._numbers.of[call], *arguments)
        else:
            result = kernel(*map(self._array, call.arguments))
        if call.outputs:
            results = result if isinstance(result, tuple) else (result,)
            self._arrays.update(zip(call.outputs, results, strict=False))

    def _array(self, argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(map(self._array, argument))
        return self._arrays.get(argument, argument.array) if isinstance(argument, Value) else argument


class _Numbers:
    """The numbers that kernels are given anew in every replay, side by side on the device.

    Attributes:
        of: by a call, those of its kernel as arrays of one element, without axes; from the first replay on.
    """

    def __init__(self, program: Program, calls: Sequence[Call]) -> None:
        """Raise RuntimeError for a call of a kernel that cannot take them from there."""
        self._xp = program.backend.xp
        self._calls: list[tuple[Call, Callable[..., tuple[Any, ...]]]] = []
        self.of: dict[Call, tuple[Any, ...]] = {}
        for call in calls:
            if any(isinstance(argument, PerReplay) for argument in call.arguments):
                numbers = getattr(getattr(program.backend.kernels, call.kernel), "numbers", None)
                if numbers is None:
                    raise RuntimeError(f"compile: on a GPU {call.kernel} cannot take another number in each replay")
                self._calls.append((call, numbers))
        self._here: list[np.ndarray] = []
        self._bytes: np.ndarray
        self._there: Any

    def write(self, read: dict[PerReplay, Any]) -> None:
        """Write them to the device, from the numbers of a replay."""
        if not self._calls:
            return
        now = [
            numbers(*(read[a] if isinstance(a, PerReplay) else a for a in call.arguments))
            for call, numbers in self._calls
        ]
        if not self.of:
            self._make(now)
        for place, number in zip(self._here, chain.from_iterable(now), strict=True):
            place[...] = number
        self._there.set(self._bytes)

    def _make(self, now: Sequence[tuple[Any, ...]]) -> None:
        """Make a place for each number, of its type."""
        kinds = [np.asarray(number).dtype for number in chain.from_iterable(now)]
        self._bytes, self._there = np.zeros(len(kinds), _SLOT), self._xp.zeros(len(kinds), _SLOT)
        here, there = (
            [array[i : i + 1].view(kind)[:1].reshape(()) for i, kind in enumerate(kinds)]
            for array in (self._bytes, self._there)
        )
        places = iter(there)
        self._here = here
        self.of = {call: tuple(islice(places, len(row))) for (call, _), row in zip(self._calls, now, strict=True)}


def _sorted(program: Program) -> tuple[list[Call], list[Call], list[Call]]:
    """Return the calls whose results are the same in every replay, the others, and the checks."""
    fixed, edited = set(program.fixed), {value.memory for call in program.calls for value in call.writes()}
    once: list[Call] = []
    others: list[Call] = []
    checks: list[Call] = []
    for call in program.calls:
        if call.kernel == "check_on_replay":
            checks.append(call)
        elif _is_constant(call, fixed) and not any(value.memory in edited for value in call.outputs):
            once.append(call)
            fixed |= set(call.outputs)
        else:
            others.append(call)
    return once, others, checks


def _is_constant(call: Call, fixed: set[Value]) -> bool:
    """Whether a call edits nothing, and gives the same in every replay."""
    varies = any(isinstance(argument, PerReplay) for argument in call.arguments)
    return not varies and not call.facts.writes and set(call.reads()) <= fixed


def _last_reads(calls: Sequence[Call], kept: Sequence[Value]) -> list[list[Value]]:
    """Return for each call the results that nothing reads after it, but for those that are kept."""
    made = ((i, value) for i, call in enumerate(calls) for value in call.outputs if value.call is call)
    last = {value: i for i, value in made if value not in kept}
    for i, call in enumerate(calls):
        last |= {value: i for value in call.reads() if value in last}
    dead: list[list[Value]] = [[] for _ in calls]
    for value, i in last.items():
        dead[i].append(value)
    return dead
