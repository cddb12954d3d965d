"""The scripts of benchmarks/, as commands."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHORT = ("--rounds", "2", "--seconds", "0.02", "--threads", "1")


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)
