"""Memory: where the plans of one function are replayed, each call in a memory of its own."""

from collections.abc import Collection
from typing import Any

import numpy as np

from minicnn.compile.binding import aligned_zeros
from minicnn.compile.plan import Plan


class Memory:
    """Room for one replay at a time of any plan of a function, as large as the largest that came so far."""

    def __init__(self) -> None:
        self._array = np.zeros(0, dtype=np.float32)
        self._runs: dict[Plan, Any] = {}
        self._last: Any = None

    def run_of(self, plan: Plan) -> Any:
        """Return what replays a plan here."""
        run = self._runs.get(plan)
        if run is None:
            if plan.length > self._array.size:
                self._runs, self._last = {}, None
                self._array = aligned_zeros(plan.length)
            run = self._runs[plan] = plan.bind(self._array[: plan.length])
        if run is not self._last:
            run.clean()
            self._last = run
        return run

    def keep(self, plans: Collection[Plan]) -> None:
        """Forget what replays other plans than these."""
        self._runs = {plan: run for plan, run in list(self._runs.items()) if plan in plans}


class Memories:
    """As many memories as there were calls at once: one that nobody uses, or a new one."""

    def __init__(self) -> None:
        self._all: list[Memory] = []
        self._free: list[Memory] = []

    def take(self) -> Memory:
        """Return a memory for the caller alone, until it gives it back."""
        try:
            return self._free.pop()
        except IndexError:
            self._all.append(Memory())
            return self._all[-1]

    def give_back(self, memory: Memory) -> None:
        """Let others have a memory."""
        self._free.append(memory)

    def keep(self, plans: Collection[Plan]) -> None:
        """Forget what replays other plans than these."""
        for memory in self._all:
            memory.keep(plans)
