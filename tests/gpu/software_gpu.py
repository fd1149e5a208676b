"""A GPU in software: the Vulkan driver of Chromium, on which WebGPU runs without any hardware.

The variables must be set before a process starts, so tests run commands in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

__all__ = ["environment", "run", "why_not"]

CHROMIUM = Path("/usr/lib/chromium")
DRIVER, LOADER = CHROMIUM / "vk_swiftshader_icd.json", CHROMIUM / "libvulkan.so.1"
_DEVICES = "from sdrt.onnx.plugins import *; print(len(devices_of(find_library('onnxruntime-ep-webgpu'))))"


@cache
def why_not() -> str:
    """Why no WebGPU device can be had here. Empty if one can."""
    done = subprocess.run(
        [sys.executable, "-c", _DEVICES], env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return "" if int(done.stdout) else f"no GPU, and no {DRIVER} (Debian's package chromium has it)"


def environment() -> Mapping[str, str]:
    """The variables of a process that finds the GPU in software, or one in hardware where there is no Chromium."""
    if not (DRIVER.is_file() and LOADER.is_file()):
        return dict(os.environ)
    return {
        **os.environ,
        "VK_ICD_FILENAMES": str(DRIVER),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(CHROMIUM), os.environ.get("LD_LIBRARY_PATH")])),
        # The variable of ONNX Runtime's WebGPU that offers a device where there is no hardware.
        "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1",
    }


def run(*command: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments where the GPU is found."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
