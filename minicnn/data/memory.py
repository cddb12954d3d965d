"""How much memory is left."""

import os
from pathlib import Path

_CONTAINERS = (  # the folder, the files of the limit and of what is used, and in memory.stat, the cache of files in it
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Bytes that processes can take: what the system calls available, and not more than a container may use."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**32]
    found += [int(1024 * int(words[1])) for words in _lines("/proc/meminfo") if words[0] == "MemAvailable:"]
    for folder, most, now, cached in _CONTAINERS:
        limit, used = (
            next((int(words[0]) for words in _lines(f"{folder}/{name}") if words[0].isdecimal()), None)
            for name in (most, now)
        )
        if limit is not None and used is not None:
            cache = sum(int(words[1]) for words in _lines(f"{folder}/memory.stat") if words[0] == cached)
            found.append(max(limit - used + cache, 0))  # the system gives such a cache back
    return min(found)


def _lines(path: str) -> list[list[str]]:
    """The words of each line of a file of the system, [] where there is none."""
    try:
        return [line.split() for line in Path(path).read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, ValueError):
        return []
