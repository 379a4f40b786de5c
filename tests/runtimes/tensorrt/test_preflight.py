from __future__ import annotations

from pathlib import Path

import pytest

from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.tensorrt.preflight import check_memory, check_room, memory_estimate

MIB = 1 << 20


def system_with(tmp_path: Path, free: int) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {free // 1024} kB\n")
    return tmp_path


def test_the_estimate_grows_with_weights_and_workspace() -> None:
    assert memory_estimate("tensorrt-rtx", 100 * MIB, 1 << 30) == memory_estimate("tensorrt-rtx", 100 * MIB, None)
    assert (
        memory_estimate("tensorrt-rtx", 101 * MIB, None) - memory_estimate("tensorrt-rtx", 100 * MIB, None) == 3 * MIB
    )
    assert memory_estimate("tensorrt", 0, 5 * MIB) - memory_estimate("tensorrt", 0, None) == 5 * MIB
    assert memory_estimate("tensorrt", 100, 100) > memory_estimate("tensorrt-rtx", 100, 100)


def test_too_little_memory_says_what_to_do(tmp_path: Path) -> None:
    root = system_with(tmp_path, 512 * MIB)
    check_memory(512 * MIB, root)
    with pytest.raises(EngineError) as caught:
        check_memory(2048 * MIB, root)
    text = str(caught.value)
    for part in ("512 MiB free", "about 2,048 MiB", "--workspace", "--tensorrt-weight-inputs", "--no-memory-check"):
        assert part in text


def test_memory_that_is_not_known_is_no_obstacle(tmp_path: Path) -> None:
    check_memory(1 << 60, tmp_path)


def test_too_little_room_names_the_option(tmp_path: Path) -> None:
    check_room(tmp_path, 0)
    with pytest.raises(EngineError, match="--cache-dir"):
        check_room(tmp_path, 1 << 60)
