"""What NVIDIA's management library tells of a GPU; nothing where there is none, or no `nvidia-ml-py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["free_bytes", "gpu_clocks", "gpus", "library", "used_bytes"]


@contextmanager
def library() -> Iterator[Any]:
    """The library, or None; open for as long as this is, so that asking again takes microseconds."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or one of another version
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def gpus() -> list[dict[str, Any]]:
    """Name, memory in bytes and driver of every GPU, as the library numbers them."""
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
    """Of every GPU its clocks in MHz, its temperature in degrees Celsius and its power in watts, as far as it tells."""
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
    """Memory that all programs together use on CUDA's `device`; None where nothing tells."""
    return _memory(device, "used")


def free_bytes(device: int) -> int | None:
    """Memory that is left on CUDA's `device`; None where nothing tells."""
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
    """CUDA counts only what CUDA_VISIBLE_DEVICES lists, by numbers or by names."""
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
