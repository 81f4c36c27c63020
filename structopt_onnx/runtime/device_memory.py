"""Memory of an NVIDIA GPU, as its driver counts it."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")


class _Memory(ctypes.Structure):
    """NVML's ``nvmlMemory_t``, in bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def device_memory_used() -> int | None:
    """Bytes in use on the first GPU, by all processes; `None` without a driver."""
    for name in _LIBRARIES:
        with suppress(OSError, AttributeError):
            return _used(ctypes.CDLL(name))
    return None


def _used(driver: ctypes.CDLL) -> int | None:
    device = ctypes.c_void_p()
    memory = _Memory()
    failed = (
        driver.nvmlInit_v2()
        or driver.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
        or driver.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
    )
    return None if failed else int(memory.used)
