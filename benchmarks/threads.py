"""Requests a second of a model that several threads ask at once, as a threaded server does, and their wrong answers.

    python benchmarks/threads.py --json benchmarks/results/threads.json

Minicnn's compiled LeNet and PyTorch's, each in a process of its own, in turns. A request is a batch of pictures (one
by default) of several in turn, its answer the logits as a NumPy array. Before anything is timed, so many threads ask
at once, and every answer whose bits are not those of a call alone is counted. "Queued" is minicnn where the callers
wait for each other: what a memory for each call gains.

Exit codes: 0, 1 wrong answers of minicnn or another failure, 2 usage, or something is not installed; then one line
says what.
"""

import importlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from threading import Lock
from typing import Any

import numpy as np

import contest
from cases import CASES, batch
from worker import Workload

THREADS = (1, 2, 4, 8)
_PICTURES = 16  # different requests
_REQUESTS = 64  # of a call, shared by its threads
_CHECKED = 5  # calls

Ask = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Measure, print and save."""
    options = contest.parser("Requests a second from 1, 2, 4 and 8 threads, and wrong answers", rounds=5, seconds=0.5)
    options.add_argument("--model", choices=sorted({case.model for case in CASES.values()}), default="lenet")
    options.add_argument("--batch-size", type=contest.batch_size, default=1, help="pictures of a request")
    arguments = options.parse_args()
    contest.require("torch")
    setting = {"model": arguments.model, "batch_size": arguments.batch_size}
    with (
        contest.Worker("threads", arguments.threads, side="minicnn", **setting) as ours,
        contest.Worker("threads", arguments.threads, side="torch", **setting) as torch,
        contest.Worker("threads", arguments.threads, side="queued", **setting) as queued,
    ):
        workers = (ours, torch, queued)
        contest.require_same_work(arguments.model, workers)
        conditions = contest.conditions(workers)
        print(f"{arguments.model}, {arguments.batch_size} pictures a request; {conditions['hardware']}")
        print(f"{'callers':8}{'minicnn/s':>12}{'wrong':>8}{'PyTorch/s':>12}{'wrong':>8}{'ratio':>8}{'queued/s':>12}")
        rows = []
        for callers in map(str, THREADS):
            times = contest.take_turns(workers, callers, arguments.rounds, arguments.seconds)
            rates = [1000 * _REQUESTS / median(turns) for turns in times]
            row = {
                "callers": int(callers),
                "minicnn_per_s": round(rates[0], 1),
                "minicnn_wrong": ours.ready["wrong"][callers],
                "torch_per_s": round(rates[1], 1),
                "torch_wrong": torch.ready["wrong"][callers],
                "ratio": round(median(b / a for a, b in zip(*times[:2], strict=True)), 3),
                "queued_per_s": round(rates[2], 1),
            }
            rows.append(row)
            print(
                "{callers:<8}{minicnn_per_s:>12,.0f}{minicnn_wrong:>8}{torch_per_s:>12,.0f}{torch_wrong:>8}"
                "{ratio:>8.2f}{queued_per_s:>12,.0f}".format(**row),
                flush=True,
            )
    record: dict[str, Any] = {"callers": rows, **setting, "checked": _CHECKED * _REQUESTS}
    record |= {"threads": arguments.threads, "rounds": arguments.rounds, "seconds": arguments.seconds}
    contest.save(arguments.json, record | conditions)
    if any(row["minicnn_wrong"] for row in rows):
        sys.exit("threads: minicnn has answered wrongly")


def build(side: str, model: str, batch_size: int) -> Workload:
    """One task for each number of callers: ``_REQUESTS`` requests, shared by them."""
    ask: Ask = {"minicnn": _minicnn, "torch": _torch, "queued": _queued}[side](model)
    pictures = np.split(batch(_PICTURES * batch_size)[0], _PICTURES)
    alone = [ask(x) for x in pictures]

    def wrong(first: int, count: int) -> int:
        return sum(
            ask(pictures[i % _PICTURES]).tobytes() != alone[i % _PICTURES].tobytes()
            for i in range(first, first + count)
        )

    def task(callers: int) -> Callable[[], int]:
        pool = ThreadPoolExecutor(callers)
        share = _REQUESTS // callers
        return lambda: sum(pool.map(lambda caller: wrong(caller * share, share), range(callers)))

    tasks = {str(callers): task(callers) for callers in THREADS}
    found = {callers: sum(run() for _ in range(_CHECKED)) for callers, run in tasks.items()}
    return Workload(dict(tasks), facts={"wrong": found, "logits": alone[0].tolist()})


def _minicnn(name: str) -> Ask:
    model = importlib.import_module("cases_minicnn").make(name)
    predict = importlib.import_module("minicnn").compile(model)
    return lambda x: predict(x).numpy()


def _queued(name: str) -> Ask:
    ask, lock = _minicnn(name), Lock()

    def wait_and_ask(x: np.ndarray) -> np.ndarray:
        with lock:
            return ask(x)

    return wait_and_ask


def _torch(name: str) -> Ask:
    torch = importlib.import_module("torch")
    model = importlib.import_module("cases_torch").make(name).eval()

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return predict


if __name__ == "__main__":
    main()
