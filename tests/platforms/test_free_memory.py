from __future__ import annotations

from pathlib import Path

import pytest

from flashhead_edge.platforms.free_memory import free_memory_bytes

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"}
GROUP_2 = {
    "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon {GIB}\nfile {2 * GIB}\ninactive_file {2 * GIB}\n",
}
GROUP_1 = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 8 * GIB),
        (MEMINFO | GROUP_2, 3 * GIB),  # a cache of files makes room when it must
        (MEMINFO | GROUP_1, GIB),
        (MEMINFO | GROUP_2 | {"sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
        (MEMINFO | {"sys/fs/cgroup/memory.max": "5\n", "sys/fs/cgroup/memory.current": "9\n"}, 0),
    ],
    ids=["nothing", "machine", "group 2", "group 1", "no limit", "over the limit"],
)
def test_free_memory(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert free_memory_bytes(write(tmp_path, files)) == expected


def test_this_machine_has_some() -> None:
    free = free_memory_bytes()
    assert free is not None
    assert free > 1 << 20
