"""What glibc does with freed memory while a graph is loaded, and afterwards. Counted in page faults."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrt.common.allocator import reusing_freed_memory

resource = pytest.importorskip("resource", reason="page faults are counted by Unix")

_C = ctypes.CDLL(None)
pytestmark = pytest.mark.skipif(not hasattr(_C, "mallopt"), reason="only glibc has mallopt")

BLOCK = 40 << 20
"""Bytes. glibc never keeps a freed block of this size."""
PAGES = BLOCK // 4096
_NOHUGEPAGE = 15


def faults_of(blocks: int) -> int:
    """The page faults of so many blocks that are taken, written and freed, one after another."""
    _C.malloc.restype = ctypes.c_void_p
    _C.malloc.argtypes = [ctypes.c_size_t]
    _C.free.argtypes = [ctypes.c_void_p]
    _C.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        block = _C.malloc(BLOCK)
        # Some systems give huge pages unasked, each of which is one fault.
        _C.madvise(-(-block // 4096) * 4096, BLOCK - 4096, _NOHUGEPAGE)
        ctypes.memset(block, 1, BLOCK)
        _C.free(block)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def only_inside() -> None:
    assert faults_of(5) > 4 * PAGES
    with reusing_freed_memory():
        assert faults_of(5) < 2 * PAGES
    assert faults_of(5) > 4 * PAGES


def the_last_of_several_loads_ends_it() -> None:
    """Loads of other threads overlap."""
    started, may_end = threading.Event(), threading.Event()

    def other() -> None:
        with reusing_freed_memory():
            started.set()
            may_end.wait(60)

    thread = threading.Thread(target=other)
    with reusing_freed_memory():
        thread.start()
        assert started.wait(60)
    assert faults_of(5) < 2 * PAGES
    may_end.set()
    thread.join()
    assert faults_of(5) > 4 * PAGES


def it_ends_after_an_error() -> None:
    with pytest.raises(ValueError, match="a load fails"), reusing_freed_memory():
        raise ValueError("a load fails")
    assert faults_of(5) > 4 * PAGES


def of_the_user() -> None:
    with reusing_freed_memory():
        assert faults_of(5) > 4 * PAGES


def in_a_new_process(case: Callable[[], None], **variables: str) -> None:
    """Other tests leave holes in the heap of this process, which serve blocks too."""
    code = f"from tests.runtime.common.test_allocator import {case.__name__} as case; case()"
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), *filter(None, sys.path)])
    environment = {**os.environ, **variables, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


@pytest.mark.parametrize("case", [only_inside, the_last_of_several_loads_ends_it, it_ends_after_an_error])
def test_freed_blocks_serve_the_next_ones_while_a_graph_loads(case: Callable[[], None]) -> None:
    in_a_new_process(case)


@pytest.mark.parametrize(
    "variable", [{"MALLOC_MMAP_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}]
)
def test_settings_of_the_user_stay(variable: dict[str, str]) -> None:
    in_a_new_process(of_the_user, **variable)
