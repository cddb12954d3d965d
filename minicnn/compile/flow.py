"""Flow: who makes and who reads what in a row of calls, and the joining of calls by rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from minicnn.compile.program import Call, Value


class Flow:
    """Who makes and who reads each Value of some calls."""

    def __init__(self, calls: Sequence[Call], kept: Collection[Value]) -> None:
        self.calls, self._kept = calls, kept
        self._makers: dict[Value, int] = {}
        self._readers: dict[Value, list[int]] = defaultdict(list)
        for i, call in enumerate(calls):
            for value in call.reads():
                self._readers[value].append(i)
            for value in call.outputs:
                self._makers.setdefault(value, i)

    def readers(self, value: Value) -> list[int]:
        """Return the places of the calls that read a Value, one for each time."""
        return self._readers[value]

    def maker(self, value: Any, *kernels: str) -> int | None:
        """Return the place of the call that makes a Value, if it is one of these kernels."""
        place = self._makers.get(value) if isinstance(value, Value) else None
        return place if place is not None and self.calls[place].kernel in kernels else None

    def is_inner(self, value: Value) -> bool:
        """Whether one call reads a Value, once, and nothing else looks at it."""
        return len(self._readers[value]) == 1 and value not in self._kept

    def reader(self, value: Value, *kernels: str) -> int | None:
        """Return the place of the one call that reads a Value, if it is one of these kernels."""
        if not self.is_inner(value):
            return None
        (place,) = self._readers[value]
        return place if self.calls[place].kernel in kernels else None

    def stays(self, value: Any, first: int, last: int) -> bool:
        """Whether no call from one place to another edits an argument."""
        if not isinstance(value, Value):
            return True
        return all(value.memory not in memories(call.writes()) for call in self.calls[first:last])

    def may_join(self, places: Collection[int], at: int) -> bool:
        """Whether calls may move to one place: nothing between needs them before, or they what comes between."""
        for place in places:
            for other in range(min(place, at) + 1, max(place, at)):
                first, second = (self.calls[i] for i in sorted((place, other)))
                if other not in places and _depends(second, first):
                    return False
        return True


Join = tuple[Sequence[int], str, tuple[Any, ...], tuple[Value, ...]]
"""Places of calls, of which the last is that of the call which does it all; its kernel, arguments and outputs."""
Rule = Callable[[Flow, int], Join | None]


def joined(calls: list[Call], kept: Collection[Value], rule: Rule) -> list[Call]:
    """Return the calls with those that a rule finds joined."""
    flow, i = Flow(calls, kept), 0
    while i < len(calls):
        found = rule(flow, i)
        if found is None or not flow.may_join(found[0], max(found[0])):
            i += 1
            continue
        places, kernel, arguments, outputs = found
        layers = dict.fromkeys(calls[place].layer for place in sorted(places) if calls[place].layer)
        call = Call(kernel, arguments, "+".join(layers), outputs)
        last = max(places)
        calls = [call if j == last else c for j, c in enumerate(calls) if j == last or j not in places]
        flow, i = Flow(calls, kept), min(places)
    return calls


def _depends(second: Call, first: Call) -> bool:
    """Whether two calls have to stay in this order. Checks look at their arrays behind all calls, or before them."""
    if "check_on_replay" in (first.kernel, second.kernel):
        return False
    if not set(first.outputs).isdisjoint(second.reads()):
        return True
    edits = memories(first.writes()), memories(second.writes())
    return not (edits[0].isdisjoint(memories(second.reads())) and edits[1].isdisjoint(memories(first.reads())))


def memories(values: Iterable[Value]) -> set[int]:
    """Return what the Values lie in, see :class:`~minicnn.compile.program.Value`."""
    return {value.memory for value in values}
