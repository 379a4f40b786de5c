from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from benchmarks.undisturbed import Waiting, thread_ids

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what threads wait")


def test_a_new_thread_is_seen():
    before, done = thread_ids(), threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread_ids() - before == {str(thread.native_id)}
    finally:
        done.set()
        thread.join()


def test_a_thread_that_has_to_wait_for_a_core_is_disturbed():
    core = next(iter(os.sched_getaffinity(0)))
    done = threading.Event()

    def busy():
        os.sched_setaffinity(0, {core})
        while not done.is_set():
            pass

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        waiting = Waiting(str(thread.native_id) for thread in threads)
        time.sleep(0.5)
        assert waiting.disturbed(0.5)
        waiting.restart()
        assert not waiting.disturbed(1e6)
    finally:
        done.set()
        for thread in threads:
            thread.join()
