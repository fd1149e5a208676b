"""What a benchmark tells of the machine: memory, GPUs, and other programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sdrt.benchmark.machine import Others, clocks, facts
from sdrt.benchmark.memory import Watch, own_bytes, peak_resident
from sdrt.benchmark.nvidia import gpu_clocks, gpus, used_bytes

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what Linux tells")


class Nvml(ModuleType):
    """In place of NVIDIA's library: two GPUs, of which the second has no sensor of power."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVMLError = RuntimeError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.used = [1 << 30, 2 << 30]
        self.open = 0

    def __getattr__(self, name: str) -> Any:
        table = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": lambda name: {"GPU-b": 1}[name],
            "nvmlDeviceGetName": lambda handle: f"GPU {handle}".encode(),
            "nvmlSystemGetDriverVersion": lambda: "600.1",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=8 << 30, used=self.used[handle]),
            "nvmlDeviceGetClockInfo": lambda handle, kind: 1000 * kind,
            "nvmlDeviceGetTemperature": lambda handle, kind: 60,
            "nvmlDeviceGetPowerUsage": self._power,
        }
        return table[name]

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def _power(self, handle: int) -> int:
        if handle:
            raise RuntimeError("not supported")
        return 250_000


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    made = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


def test_gpus_are_told(nvml: Nvml) -> None:
    assert gpus()[1] == {"name": "GPU 1", "memory_bytes": 8 << 30, "driver": "600.1"}
    first, second = gpu_clocks()
    assert first == {"sm_mhz": 1000, "memory_mhz": 2000, "celsius": 60, "watts": 250}
    assert "watts" not in second
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("visible", "device", "gpu"), [(None, 1, 1), ("1", 0, 1), ("1,0", 1, 0), ("GPU-b", 0, 1)]
)
def test_memory_is_that_of_cuda_s_device(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: int, gpu: int
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert used_bytes(device) == nvml.used[gpu]


def test_a_device_that_is_not_visible_has_no_figure(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert used_bytes(3) is None


def test_without_the_library_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (gpus(), gpu_clocks(), used_bytes(0)) == ([], [], None)


@linux
def test_own_memory_is_what_a_process_wrote() -> None:
    code = "import sys; a = bytearray(b'x') * (200 << 20); print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with Watch(lambda: own_bytes(process.pid)) as watch:
            process.stdout.readline()
            time.sleep(0.1)
        assert watch.peak is not None
        assert 200 << 20 < watch.peak < 300 << 20
        process.communicate("")
    assert own_bytes(process.pid) is None


def test_what_cannot_be_told_stays_none() -> None:
    with Watch(lambda: None) as watch:
        pass
    assert watch.peak is None


@linux
def test_the_peak_is_the_system_s() -> None:
    found = peak_resident()
    assert found is not None
    assert (found[0] > 10 << 20, found[1]) == (True, "VmHWM of /proc/self/status")


@pytest.mark.parametrize(
    ("own", "busy", "share"),
    [
        # Of 2 processors in 10 seconds: all that was busy was our own; half of one was not.
        (12.0, 12.0, 0.0),
        (12.0, 17.0, 0.25),
        # The counter of the system goes in ticks, and may lag.
        (12.0, 11.9, 0.0),
    ],
)
def test_others_are_what_is_busy_beside_us(
    monkeypatch: pytest.MonkeyPatch, own: float, busy: float, share: float
) -> None:
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    monkeypatch.setattr(os, "sysconf", lambda name: ticks, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    now = SimpleNamespace(seconds=100.0, own=3.0, busy=50.0)
    monkeypatch.setattr(
        "sdrt.benchmark.machine.time",
        SimpleNamespace(perf_counter=lambda: now.seconds, process_time=lambda: now.own),
    )
    # user, nice, system, idle, iowait, irq, softirq, steal: waiting for a disk is idle.
    monkeypatch.setattr(
        "sdrt.benchmark.machine._read",
        lambda path: f"cpu  {round(now.busy * ticks)} 0 0 900 77 0 0 0 0 0\ncpu0 1 2",
    )
    others = Others()
    now.seconds, now.own, now.busy = now.seconds + 10, now.own + own, now.busy + busy
    assert others.share() == pytest.approx(share)


def test_others_are_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.benchmark.machine._read", lambda path: None)
    assert Others().share() is None


def test_facts_are_there_on_any_system() -> None:
    found = facts()
    assert found["cpu"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(clocks()) == {"cpu_mhz", "gpus"}
