"""How much memory is left."""

import os
from pathlib import Path


def free_memory() -> int:
    """Bytes that processes can take: what the system calls available, and not more than a container may use."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**32]
    found += [int(1024 * int(words[1])) for words in _lines("/proc/meminfo") if words[0] == "MemAvailable:"]
    limit, used = (
        next((int(words[0]) for words in _lines(f"/sys/fs/cgroup/memory.{name}") if words[0].isdecimal()), None)
        for name in ("max", "current")
    )
    if limit is not None and used is not None:
        found.append(max(limit - used, 0))
    return min(found)


def _lines(path: str) -> list[list[str]]:
    """The words of each line of a file of the system, [] where there is none."""
    try:
        return [line.split() for line in Path(path).read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, ValueError):
        return []
