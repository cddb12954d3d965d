"""How long a user waits for the first training step: minicnn with and without compiled kernels, and a peer.

    python benchmarks/startup.py --json benchmarks/results/startup.json

From the start of a process to the end of its first step of LeNet at batch 128, on the CPU. The kernels are compiled
once on a machine: the first row uses an empty folder for them, the second one that is filled, as all later runs.

Exit codes: 0, 1 failure, 2 usage, or something is not installed; then one line says what.
"""

import os
import tempfile
from statistics import median
from typing import Any

import contest


def main() -> None:
    """Measure, print and save."""
    options = contest.parser("The wait for the first training step", rounds=3, seconds=1e-3)
    options.add_argument("--peer", choices=contest.PEERS, default="torch", help="the other framework")
    arguments = options.parse_args()
    case, backend = "lenet-train", "numpy"
    setting = {"case": case, "batch_size": 128, "backend": backend, "threads": arguments.threads}
    contest.require_able([arguments.peer], case, backend)
    contest.require(arguments.peer)
    ours, peer = contest.OWN["minicnn"], contest.PEERS[arguments.peer]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NUMBA_CACHE_DIR"] = cache
        seconds = {f"{ours.label}, kernels not compiled yet": _wait(ours, setting)[0]}
        for contender in (ours, peer):
            waits, worker = zip(*(_wait(contender, setting) for _ in range(arguments.rounds)), strict=True)
            seconds[contender.label] = median(waits)
    for name, value in seconds.items():
        print(f"{name:36}{value:8.2f} s")
    record: dict[str, Any] = {"startup": seconds, **setting, "rounds": arguments.rounds}
    contest.save(arguments.json, record | contest.conditions(worker))


def _wait(contender: contest.Contender, setting: dict[str, Any]) -> tuple[float, contest.Worker]:
    """Seconds until a new process has made its first step."""
    with contender.start(**setting) as worker:
        return worker.wait("step"), worker


if __name__ == "__main__":
    main()
