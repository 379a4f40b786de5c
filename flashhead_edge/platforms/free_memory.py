"""Memory that a program can still take: what the system has left, and what a container may use of it."""

from __future__ import annotations

from pathlib import Path

from flashhead_edge.platforms.system_files import read_text

#: Files of control groups, version 2 and version 1: the limit, what is used, and what of it is a cache of files.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can be taken without swapping, in bytes; None where the system does not say.

    What Linux calls available, and no more than what the control group (a container's) has left.

    Args:
        root: Root of the file system whose files are read.
    """
    known = []
    for line in read_text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            known.append(int(line.split()[1]) * 1024)
    folder = root / "sys/fs/cgroup"
    for limit_name, used_name, stat_name, cache_name in _GROUPS:
        limit, used = (read_text(folder / name).strip() for name in (limit_name, used_name))
        if limit.isdigit() and used.isdigit():
            stat = dict(line.split()[:2] for line in read_text(folder / stat_name).splitlines() if " " in line)
            taken = int(used) - int(stat.get(cache_name, "0"))
            known.append(max(int(limit) - taken, 0))
    return min(known, default=None)
