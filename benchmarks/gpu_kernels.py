"""What the kernels of a GPU take of its multiprocessors; they are compiled on the way, if they are not yet.

    python benchmarks/gpu_kernels.py --json gpu-kernels.json

Registers of a thread, bytes of a thread in local memory (spilled registers among them), bytes of shared memory of a
block, as the driver says. The kernels are those of minicnn/backend/cuda/*.cu, for float32 and float64; CuPy keeps what
is compiled in CUPY_CACHE_DIR.

Exit codes: 0, 1 failure, 2 usage or no GPU; then one line says what.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

import contest
import gpu
from minicnn.backend.cuda import launch

_TYPES = {"float32": np.float32, "float64": np.float64}


def main() -> None:
    """Compile, ask, print and save."""
    options = argparse.ArgumentParser(description="Registers and memory of the kernels of a GPU")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    xp = gpu.require().xp
    names = re.findall(r"^KERNEL (\w+)", launch.source("float", "int"), re.MULTILINE)
    rows = [takes(name, dtype) for dtype in _TYPES for name in names]
    record = {"gpu_kernels": rows, **gpu.conditions(xp)}
    print(table(record))
    contest.save(arguments.json, record)


def takes(name: str, dtype: str) -> dict[str, Any]:
    """Return what a kernel takes."""
    kernel = launch.compiled(name, _TYPES[dtype])
    return {
        "kernel": name,
        "dtype": dtype,
        "registers": kernel.num_regs,
        "local": kernel.local_size_bytes,
        "shared": kernel.shared_size_bytes,
    }


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table: those that keep most in local memory first, then by registers."""
    rows = sorted(record["gpu_kernels"], key=lambda row: (row["local"], row["registers"]), reverse=True)
    lines = ["| kernel | elements | registers | local bytes | shared bytes |", "|---|---|---:|---:|---:|"]
    return "\n".join(lines + ["| `{kernel}` | {dtype} | {registers} | {local} | {shared} |".format(**r) for r in rows])


if __name__ == "__main__":
    main()
