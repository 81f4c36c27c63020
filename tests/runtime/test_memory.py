from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest

from structopt_onnx.runtime.memory import return_freed

BLOCKS, BYTES = 1000, 100_000  # each below the size that is mapped by itself


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_freed_blocks_below_one_in_use_are_given_back():
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BYTES)
    for block in blocks[:-1]:
        library.free(block)
    before = resident_kib()
    return_freed()
    assert resident_kib() < before - BLOCKS * BYTES // 2 // 1024
    library.free(blocks[-1])
