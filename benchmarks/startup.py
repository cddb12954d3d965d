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
    contest.require(arguments.peer)
    peer = contest.PEERS[arguments.peer]
    setting = {"case": "lenet-train", "batch_size": 128, "backend": "numpy", "threads": arguments.threads}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NUMBA_CACHE_DIR"] = cache
        seconds = {"minicnn, kernels not compiled yet": _wait("cases_minicnn", setting)[0]}
        for name, module in (("minicnn", "cases_minicnn"), (peer.label, f"cases_{arguments.peer}")):
            waits, worker = zip(*(_wait(module, setting) for _ in range(arguments.rounds)), strict=True)
            seconds[name] = median(waits)
    for name, value in seconds.items():
        print(f"{name:36}{value:8.2f} s")
    record: dict[str, Any] = {"startup": seconds, **setting, "rounds": arguments.rounds}
    contest.save(arguments.json, record | contest.conditions(worker))


def _wait(module: str, setting: dict[str, Any]) -> tuple[float, contest.Worker]:
    """Seconds until a new process has made its first step."""
    with contest.Worker(module, **setting) as worker:
        return worker.wait("step"), worker


if __name__ == "__main__":
    main()
