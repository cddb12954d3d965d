"""What the benchmarks of a GPU share: the backend, the name of the card, versions of the driver and of CUDA.

    python benchmarks/gpu.py

prints them; exit code 2 and one line where there is no GPU.
"""

from typing import Any

import contest
from minicnn import backend


def main() -> None:
    """Print the card and all versions."""
    found = conditions(require().xp)
    print(found["hardware"], *(f"{package} {number}" for package, number in found["versions"].items()), sep="\n")


def require() -> backend.Backend:
    """Return the backend; one line and exit code 2 where there is no GPU."""
    try:
        return backend.get("cupy")
    except backend.BackendUnavailable as error:
        contest.refuse(str(error))


def name(xp: Any) -> str:
    """Return the name of the card in use."""
    return xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)["name"].decode()


def conditions(xp: Any) -> dict[str, Any]:
    """Return what :func:`contest.conditions` says, with the card, the driver and CUDA."""
    found = contest.conditions([], name(xp))
    driver, runtime = xp.cuda.runtime.driverGetVersion(), xp.cuda.runtime.runtimeGetVersion()
    found["versions"] |= {"driver for CUDA": _number(driver), "CUDA": _number(runtime)}
    return found


def _number(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


if __name__ == "__main__":
    main()
