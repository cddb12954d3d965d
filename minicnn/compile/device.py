"""Device: plans for CuPy arrays. A replay is one CUDA graph, which the device works through without the host.

The first replay calls the kernels one by one, so that they are compiled and memory is there; the second records what
they launch, on a stream of its own and in memory of its own; from then on a replay starts that graph. What differs from
replay to replay is in fixed places on the device: the inputs, and the numbers that a kernel is given
(:func:`minicnn.backend.cuda.live.live`), which are written there before. What cannot be recorded is said, and called
one by one in every replay.

Checks look at their arrays behind the replay, or before it where these are inputs. So where a loss is not finite, or
labels that the function makes of an input are out of range, the weights have changed already when it is said.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import numpy as np

from minicnn.compile.device_fuse import fused, title
from minicnn.compile.plan import Plan
from minicnn.compile.program import Action, Call, PerReplay, Program, Value
from minicnn.compile.report import Line

_SLOT = np.dtype(np.uint64)
"""What any number of a kernel has room in."""
_KINDS = {bool: np.bool_, np.bool_: np.bool_, np.uint64: np.uint64}
"""The types of numbers that are not floating-point on the device."""
_MANY = 10
"""Arrays of a call that a listing only counts."""


class DevicePlan(Plan):
    """A recorded run on CuPy arrays.

    Attributes:
        calls: what a replay calls, after the passes of :mod:`minicnn.compile.device_fuse`.
    """

    def __init__(self, program: Program) -> None:
        self.calls = fused(program)
        super().__init__(program)

    def bind(self, memory: Any) -> DeviceRun:
        """Return what replays the plan, in memory of the device."""
        return DeviceRun(self.program, self.calls)

    def listing(self) -> tuple[str, list[Line]]:
        """Return a line about the plan, and its calls in order."""
        lines: list[Line] = []
        for call in self.calls:
            ends = (_described(values) for values in (call.reads(), call.outputs))
            lines.append((call.layer, title(call), " -> ".join(ends)))
        return f"plan: a CUDA graph of {len(self.calls)} calls, {self.flop() / 1e6:,.1f} MFLOP", lines


class DeviceRun:
    """The replays of a plan on the device; for one thread at a time.

    They follow each other on a stream of their own, which waits for the caller's before and is waited for behind.

    Attributes:
        graph: the CUDA graph, None as long as there is none.
    """

    def __init__(self, program: Program, calls: Sequence[Call]) -> None:
        self._program, self._xp = program, program.backend.xp
        cuda = self._xp.cuda
        self._memory, self._stream = _Memory(cuda), cuda.Stream(non_blocking=True)
        self._places = [self._xp.empty(value.shape, value.dtype) for value in program.inputs]
        self._arrays: dict[Value, Any] = {}
        self._once, self._calls, self._checks = _sorted(program, calls)
        self._numbers = _Numbers(program, self._calls)
        made_once = (value for call in self._once for value in call.outputs)
        kept = [*program.outputs, *(check.arguments[0] for check in self._checks), *made_once]
        self._last = _last_reads(self._calls, kept)
        self._replays = 0  # up to the second
        self._read_out: Any = None  # when the outputs of the last replay have been copied
        self.graph: Any = None

    def __del__(self) -> None:
        """Give the memory back: a pool of CuPy does not, where it is only dropped."""
        with suppress(Exception):  # CUDA may be gone already
            self._arrays.clear()
            self.graph = None
            self._memory.pool.free_all_blocks()

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
        try:
            with self._stream:
                self._replay(arrays)
        finally:
            current.wait_event(self._stream.record())
        try:
            for check in self._checks:
                if check.arguments[0] not in inputs:
                    check.arguments[1](self._array(check.arguments[0]))
            return [self._array(value).copy() for value in outputs]
        finally:
            self._read_out = current.record()

    def _replay(self, arrays: Sequence[Any]) -> None:
        """Do what Python does, bring what this replay has of its own to its places, and start the kernels.

        Where that fails, what Python did is undone.
        """
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
            if self.graph is None:
                pool = self._memory.pool  # nothing takes of it once there is a graph, which needs it
                with self._xp.cuda.using_allocator(pool.malloc):
                    self._call()
            if self.graph is not None:
                self.graph.launch(self._stream)
        except BaseException:
            for action in reversed(done):
                if action.undo is not None:
                    action.undo()
            raise

    def _call(self) -> None:
        """Call the kernels; but the second time record them, unless that fails."""
        if self._replays == 0:
            self._arrays |= zip(self._program.inputs, self._places, strict=True)
            for call in self._once:
                self._do(call)
        if self._replays == 1:
            made_once = {value for call in self._once for value in call.outputs}
            made = {value for call in self._calls for value in _made(call)} - made_once
            self._arrays = {value: array for value, array in self._arrays.items() if value not in made}
            self._replays = 2
            self._record()
        if self.graph is None:
            self._do_all()
            self._replays = max(self._replays, 1)

    def _record(self) -> None:
        """Record the kernels as a graph; or say why not."""
        self._stream.begin_capture(mode=self._xp.cuda.runtime.streamCaptureModeRelaxed)
        self._memory.is_recorded = True
        try:
            self._do_all()
            self.graph = self._stream.end_capture()
        except BaseException as error:
            with suppress(Exception):  # CUDA may have ended it
                self._stream.end_capture()
            if not isinstance(error, Exception):
                raise
            reason = f"compile: no CUDA graph, kernels are called one by one: {error}"
            warnings.warn(reason, stacklevel=8)  # at the call of the compiled function
        finally:
            self._memory.is_recorded = False

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
            results = [r for r in (result if isinstance(result, tuple) else (result,)) if r is not None]
            self._arrays.update(zip(call.outputs, results, strict=True))

    def _array(self, argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(map(self._array, argument))
        return self._arrays.get(argument, argument.array) if isinstance(argument, Value) else argument


class _Memory:
    """Memory of a run's own, none of which goes back to the device while it is recorded: the graph needs it all.

    CuPy frees what nobody holds where the device has no more, and tries again, unless the error is none of CUDA's.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda, self.is_recorded = cuda, False
        self.pool = cuda.MemoryPool(self.allocate)
        self.pool.set_limit(size=0)  # that of the environment holds for CuPy's own

    def allocate(self, size: int) -> Any:
        """Return new memory of the device."""
        try:
            return self._cuda.MemoryPointer(self._cuda.Memory(size), 0)
        except self._cuda.runtime.CUDARuntimeError as error:
            if self.is_recorded:
                raise MemoryError(str(error)) from error
            raise


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
            if any(map(_varies, call.arguments)):
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
        now = [numbers(*(_read(a, read) for a in call.arguments)) for call, numbers in self._calls]
        if not self.of:
            self._make(now)
        for place, number in zip(self._here, chain.from_iterable(now), strict=True):
            place[...] = number
        self._there.set(self._bytes)

    def _make(self, now: Sequence[tuple[Any, ...]]) -> None:
        """Make a place for each number: a truth value, the key of a mask, or float64."""
        kinds = [np.dtype(_KINDS.get(type(number), np.float64)) for number in chain.from_iterable(now)]
        self._bytes, self._there = np.zeros(len(kinds), _SLOT), self._xp.zeros(len(kinds), _SLOT)
        here, there = (
            [array[i : i + 1].view(kind)[:1].reshape(()) for i, kind in enumerate(kinds)]
            for array in (self._bytes, self._there)
        )
        places = iter(there)
        self._here = here
        self.of = {call: tuple(islice(places, len(row))) for (call, _), row in zip(self._calls, now, strict=True)}


def _described(values: Sequence[Value]) -> str:
    """Return the shapes of some arrays, or the number of many."""
    if len(values) > _MANY:
        return f"{len(values)} arrays"
    return " ".join(f"array{list(value.shape)}" for value in values)


def _sorted(program: Program, calls: Sequence[Call]) -> tuple[list[Call], list[Call], list[Call]]:
    """Return the calls whose results are the same in every replay, the others, and the checks."""
    fixed, edited = set(program.fixed), {value.memory for call in calls for value in call.writes()}
    once: list[Call] = []
    others: list[Call] = []
    checks: list[Call] = []
    for call in calls:
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
    return not any(map(_varies, call.arguments)) and not call.facts.writes and set(call.reads()) <= fixed


def _read(argument: Any, read: dict[PerReplay, Any]) -> Any:
    """Return an argument with the numbers of a replay."""
    if isinstance(argument, list | tuple):
        return type(argument)(_read(a, read) for a in argument)
    return read[argument] if isinstance(argument, PerReplay) else argument


def _varies(argument: Any) -> bool:
    """Whether an argument is a number that each replay reads anew, or a list of such."""
    return any(map(_varies, argument)) if isinstance(argument, list | tuple) else isinstance(argument, PerReplay)


def _made(call: Call) -> list[Value]:
    """Return the results of a call that are neither states nor inputs; a kernel may return its argument."""
    return [value for value in call.outputs if value.call is not None]


def _last_reads(calls: Sequence[Call], kept: Sequence[Value]) -> list[list[Value]]:
    """Return for each call the results that nothing reads after it, but for those that are kept."""
    made = ((i, value) for i, call in enumerate(calls) for value in _made(call))
    last = {value: i for i, value in made if value not in kept}
    for i, call in enumerate(calls):
        last |= {value: i for value in call.reads() if value in last}
    dead: list[list[Value]] = [[] for _ in calls]
    for value, i in last.items():
        dead[i].append(value)
    return dead
