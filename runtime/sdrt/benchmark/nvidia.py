"""GPU facts from NVIDIA's management library. Without a GPU or `nvidia-ml-py`, there are none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["free_bytes", "gpu_clocks", "gpus", "library", "used_bytes"]


@contextmanager
def library() -> Iterator[Any]:
    """The opened library, or None. Nested calls within this block take microseconds."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or a driver of another version
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def gpus() -> list[dict[str, Any]]:
    """Name, memory in bytes and driver of every GPU, in the order of the library."""
    with library() as nvml:
        if nvml is None:
            return []
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        return [
            {
                "name": _text(nvml.nvmlDeviceGetName(handle)),
                "memory_bytes": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                "driver": driver,
            }
            for handle in handles
        ]


def gpu_clocks() -> list[dict[str, Any]]:
    """Clocks in MHz, temperature in degrees Celsius and power in watts of every GPU, if it has the sensor."""
    with library() as nvml:
        if nvml is None:
            return []
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [_state(nvml, handle) for handle in handles]


def _state(nvml: Any, handle: Any) -> dict[str, Any]:
    asked: dict[str, Callable[[], float]] = {
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
    found = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except nvml.NVMLError:  # not every board has every sensor
            continue
    return found


def used_bytes(device: int) -> int | None:
    """Bytes that all programs together use on CUDA's `device`; None if unknown."""
    return _memory(device, "used")


def free_bytes(device: int) -> int | None:
    """Free bytes on CUDA's `device`; None if unknown."""
    return _memory(device, "free")


def _memory(device: int, kind: str) -> int | None:
    with library() as nvml:
        if nvml is None:
            return None
        try:
            return int(getattr(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, device)), kind))
        except (nvml.NVMLError, IndexError, ValueError):
            return None


def _handle(nvml: Any, device: int) -> Any:
    """The handle of CUDA's `device`. CUDA counts only the devices in CUDA_VISIBLE_DEVICES, numbers or UUIDs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible:
        return nvml.nvmlDeviceGetHandleByIndex(device)
    entry = visible.split(",")[device].strip()
    return (
        nvml.nvmlDeviceGetHandleByIndex(int(entry))
        if entry.isdigit()
        else nvml.nvmlDeviceGetHandleByUUID(entry)
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
