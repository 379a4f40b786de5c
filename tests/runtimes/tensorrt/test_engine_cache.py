from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flashhead_edge.bundle import hash_file
from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.tensorrt.engine_cache import EngineCache, EngineRecord
from flashhead_edge.runtimes.tensorrt.engine_key import EngineKey
from tests.runtimes.tensorrt.test_engine_key import KEY

NEWER = dataclasses.replace(KEY, tensorrt_version="10.7.0")


def never() -> None:
    raise AssertionError("nobody else builds")


def put(cache: EngineCache, key: EngineKey = KEY, content: bytes = b"kernels") -> EngineRecord:
    with cache.building(key, 0, never) as scratch:
        built = scratch / "engine"
        built.write_bytes(content)
        record = EngineRecord(key, "jetson-orin-nano-8gb", len(content), hash_file(built).sha256, 1.5, 4096, 31, 5)
        cache.add(built, record)
    return record


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def test_what_was_added_is_found(cache: EngineCache) -> None:
    record = put(cache)
    assert cache.find(KEY) == record
    assert cache.find(NEWER) is None
    assert record.layers_fused == 26
    assert cache.path(KEY).read_bytes() == b"kernels"
    assert [path.name for path in cache.folder.glob("*.partial")] == []


def test_an_empty_cache_finds_nothing_and_makes_no_folder(cache: EngineCache) -> None:
    assert cache.find(KEY) is None
    assert cache.why_build(KEY) == "there is no engine yet"
    assert not cache.folder.exists()


def test_a_stale_engine_is_told_by_the_field_and_replaced(cache: EngineCache) -> None:
    put(cache)
    assert cache.why_build(NEWER) == (
        "the engine that is there is stale: tensorrt version changed (from 10.3.0 to 10.7.0)"
    )
    put(cache, NEWER)
    assert [path.name for path in cache.folder.glob("*.engine")] == [cache.path(NEWER).name]
    assert len(list(cache.folder.glob("*.json"))) == 1


def test_engines_of_other_gpus_and_graphs_stay(cache: EngineCache) -> None:
    others = [
        dataclasses.replace(KEY, gpu="NVIDIA Jetson Orin Nano Super"),
        dataclasses.replace(KEY, gpu=None),
        dataclasses.replace(KEY, graph="dense_tensorrt"),
        dataclasses.replace(KEY, backend="tensorrt-rtx"),
    ]
    for key in (*others, KEY, NEWER):
        put(cache, key)
    assert all(cache.find(key) for key in (*others, NEWER))
    assert cache.find(KEY) is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "its file is missing"),
        (lambda path: path.write_bytes(b"kern"), "its file has 4 bytes, not 7"),
        (lambda path: path.write_bytes(b"kernelt"), "its bytes have changed since it was built"),
    ],
)
def test_a_damaged_engine_is_not_found(cache: EngineCache, damage: object, reason: str) -> None:
    put(cache)
    damage(cache.path(KEY))  # type: ignore[operator]
    assert cache.find(KEY) is None
    assert cache.why_build(KEY) == f"the engine that is there cannot be used: {reason}"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"digest": "x", "key": {"batch": [1, 2]}}'])
def test_a_damaged_record_does_not_exist(cache: EngineCache, text: str) -> None:
    put(cache)
    cache.path(KEY).with_suffix(".json").write_text(text)
    assert list(cache.records()) == []
    assert cache.find(KEY) is None


def test_a_record_whose_fields_were_changed_does_not_exist(cache: EngineCache) -> None:
    put(cache)
    record = cache.path(KEY).with_suffix(".json")
    record.write_text(record.read_text().replace("10.3.0", "10.7.0"))
    assert list(cache.records()) == []


def test_timing_caches_are_of_a_gpu_and_a_version(cache: EngineCache) -> None:
    assert cache.timing_cache(KEY).name == "timing-tensorrt-10.3.0-sm87-nvidia-jetson-orin-nano.cache"
    assert cache.timing_cache(KEY) == cache.timing_cache(dataclasses.replace(KEY, graph="dense_tensorrt", cuda=None))
    assert cache.timing_cache(KEY) != cache.timing_cache(NEWER)


def test_a_failure_leaves_nothing_and_frees_the_place(cache: EngineCache) -> None:
    with contextlib.suppress(RuntimeError), cache.building(KEY, 0, never) as scratch:
        (scratch / "engine").write_bytes(b"half")
        raise RuntimeError
    assert [path.name for path in cache.folder.iterdir()] == [f".{KEY.place}.lock"]
    put(cache)


def test_what_a_killed_build_left_is_removed(cache: EngineCache) -> None:
    left = cache.folder / f".{KEY.place}.partial" / "engine"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with cache.building(KEY, 0, never) as scratch:
        assert list(scratch.iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
from flashhead_edge.runtimes.tensorrt.engine_cache import EngineCache
from tests.runtimes.tensorrt.test_engine_key import KEY
with EngineCache(Path(sys.argv[1])).building(KEY, 0, lambda: None):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(cache: EngineCache, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the place."""
    command = [sys.executable, "-c", HOLD, str(cache.folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_process_builds_at_a_time(cache: EngineCache) -> None:
    waited: list[float] = []
    with holder(cache, 0.8), cache.building(KEY, 30, lambda: waited.append(time.monotonic())):
        assert time.monotonic() - waited[0] > 0.3


def test_waiting_ends_with_who_is_in_the_way(cache: EngineCache) -> None:
    with holder(cache, 60) as other:
        refused = pytest.raises(EngineError, match=f"process {other.pid}, not ready after 0 seconds")
        try:
            with refused, cache.building(KEY, 0.3, lambda: None):
                pass
            with cache.building(dataclasses.replace(KEY, graph="dense_tensorrt"), 0, never):
                pass  # another place is free
        finally:
            other.kill()
    with cache.building(KEY, 5, lambda: None):
        pass  # and so is this one, as its owner is dead


def test_a_folder_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file" / "engines")
    with pytest.raises(EngineError, match="--cache-dir"), cache.building(KEY, 0, never):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_bundle_names_the_option(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EngineError, match="--cache-dir"), EngineCache(tmp_path / "engines").building(KEY, 0, never):
        pass
