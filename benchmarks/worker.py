"""One contender in a process of its own: ``worker.py MODULE OPTIONS``, started by :class:`contest.Worker`.

``MODULE.build(**OPTIONS)`` returns a :class:`Workload`. Requests and answers are one line of JSON each: after a first
answer that says it is ready, ``{"task": name, "seconds": s}`` times a task and ``{"task": null}`` asks for the peak of
memory. The process ends with its standard input.
"""

import importlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WARM_UP_CALLS = 3
_SETTLE_LIMIT = 2.0


@dataclass
class Workload:
    """Tasks by name, and what is to be known about them.

    Attributes:
        tasks: functions without arguments; what they return is not used.
        precision: the type that the heavy operations of the tasks compute with.
        synchronize: waits until the device has done what was started.
        device: name of the GPU, None on the CPU.
        device_peak_mib: the most memory its pool has held.
        facts: anything else for the first answer, ready for JSON.
    """

    tasks: dict[str, Callable[[], object]]
    precision: str = "float32"
    synchronize: Callable[[], object] = lambda: None
    device: str | None = None
    device_peak_mib: Callable[[], float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def main() -> None:
    """Build, then serve until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it the standard input
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    module, options = sys.argv[1:]
    workload = importlib.import_module(module).build(**json.loads(options))
    ready = {"device": workload.device, "precision": workload.precision, "tasks": list(workload.tasks)}
    print(json.dumps(ready | workload.facts), file=answers, flush=True)
    first_calls: dict[str, float] = {}  # when they ended
    for line in sys.stdin:
        request = json.loads(line)
        name = request["task"]
        if name is None:
            answer = {"peak_mib": (workload.device_peak_mib or _resident_peak_mib)()}
        else:
            if name not in first_calls:
                first_calls[name] = _warm_up(workload, name)
            seconds = _time(workload, name, request["seconds"])
            answer = {"seconds_per_call": seconds, "first_call_ended": first_calls[name]}
        _settle()
        print(json.dumps(answer), file=answers, flush=True)


def _warm_up(workload: Workload, name: str) -> float:
    """Call the task until it is warm, and tell when its first call ended, on the clock of all processes."""
    workload.tasks[name]()
    workload.synchronize()
    ended = time.monotonic()
    for _ in range(_WARM_UP_CALLS - 1):
        workload.tasks[name]()
    return ended


def _time(workload: Workload, name: str, seconds: float) -> float:
    """Mean seconds a call, over as many calls as fill ``seconds``."""
    task, calls = workload.tasks[name], 0
    workload.synchronize()
    start = time.perf_counter()
    if workload.device is not None:  # it queues calls, so that the host would not know when they fill the turn
        task()
        workload.synchronize()
        calls = math.ceil(seconds / (time.perf_counter() - start)) or 1
        start = time.perf_counter()
        for _ in range(calls):
            task()
        workload.synchronize()
        return (time.perf_counter() - start) / calls
    while True:
        task()
        calls += 1
        if time.perf_counter() - start >= seconds:
            break
    workload.synchronize()
    return (time.perf_counter() - start) / calls


def _settle() -> None:
    """Wait until the threads of this process sleep: OpenMP's spin for some milliseconds after a parallel region."""
    deadline = time.monotonic() + _SETTLE_LIMIT
    while time.monotonic() < deadline:
        used = time.process_time()
        time.sleep(0.02)
        if time.process_time() - used < 0.001:
            return
    print("worker: threads go on spinning between turns and disturb the others", file=sys.stderr)
    sys.exit(1)


def _resident_peak_mib() -> float:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it forked
        high_water = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high_water.split()[1]) / 1024
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # bytes on macOS


if __name__ == "__main__":
    main()
