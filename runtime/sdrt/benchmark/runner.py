"""Starts the processes that measure, and watches them from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdrt import errors
from sdrt.benchmark.capacity import Estimate, estimate
from sdrt.benchmark.configurations import PROMPT, Configuration, Rules
from sdrt.benchmark.measure import Model, session_config
from sdrt.benchmark.memory import Watch, own_bytes
from sdrt.benchmark.nvidia import library, used_bytes
from sdrt.common.extras import install_command
from sdrt.common.limits import memory_limit
from sdrt.common.notices import Notify
from sdrt.errors import OutOfMemoryError, SdrtError
from sdrt.onnx.providers import PROVIDERS

__all__ = ["estimated", "first_pictures", "measured", "profiled"]

_WORKER = (sys.executable, "-m", "sdrt.benchmark.worker")


def measured(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> dict[str, Any]:
    """The result of `measure` for a configuration, from a fresh process, with the memory peaks of that process."""
    with ExitStack() as watches:
        before, device = None, None
        if (number := _cuda_device(configuration)) is not None:
            watches.enter_context(library())
            before = used_bytes(number)
            if before is None:
                tell(
                    f"device memory is not measured, because nothing here reports it: {install_command('benchmark')}"
                )
            device = watches.enter_context(Watch(lambda: used_bytes(number)))
        found, own = _work("measure", model, configuration, rules, tell)
    resident = found.pop("peak_resident")
    found["memory"] = {
        "own_bytes": own,
        "resident_bytes": resident and resident[0],
        "resident_is": resident and resident[1],
        "device_bytes": None if device is None or device.peak is None else device.peak - (before or 0),
        "device_bytes_before": before,
    }
    return found


def profiled(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> dict[str, Any]:
    """The result of `ort_profile.profile` for a configuration, from a fresh process."""
    if _cuda_device(configuration) is not None:
        tell("on a GPU, ONNX Runtime's profile has the times to launch operators, not to run them")
    return _work("profile", model, configuration, rules, tell)[0]


def estimated(model: Model, configuration: Configuration, tell: Notify) -> Estimate | None:
    """The memory of a configuration, which `capacity.probe` measures in a fresh process; None if unknown."""
    return estimate(_work("memory", model, configuration, Rules(), tell)[0])


def first_pictures(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> list[float]:
    """Seconds from the start of `sdrt generate` until it prints its first file name, each in a fresh process.

    The files were read before, so the disk cache is warm. Raises `SdrtError` when a process fails.
    """
    deadline = time.perf_counter() + rules.time_limit
    tell("first images, from the start of a process")
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sdrt-benchmark-") as folder:
        for number in range(rules.first_pictures):
            if number > rules.first_pictures // 2 and time.perf_counter() >= deadline:
                break
            output = Path(folder, f"{number}-{{index}}.png")
            seconds.append(_first_picture(_generate_command(model, configuration, output)))
    return seconds


def _first_picture(command: list[str]) -> float:
    began = time.perf_counter()
    with _started(command, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        process.stdout.read()
        told = process.stderr.read().strip()
        if process.wait() or not line:
            raise SdrtError(
                f"sdrt generate failed while measuring a first image: {told.rpartition('error: ')[2]}"
            )
    return seconds


def _generate_command(model: Model, configuration: Configuration, output: Path) -> list[str]:
    options = {
        "--model": model.path,
        **{
            f"--{name}": model.beside.get(name.replace("-", "_"))
            for name in ("vae", "prediction-type", "config")
        },
        "--width": configuration.width,
        "--height": configuration.height,
        "--batch-size": configuration.batch,
        "--steps": configuration.steps,
        "--guidance-scale": configuration.guidance_scale,
        "--scheduler": configuration.scheduler,
        "--spacing": configuration.spacing,
        "--provider": configuration.provider,
        "--provider-library": configuration.provider_library,
        "--threads": configuration.threads,
        "--max-size": configuration.max_size,
        "--seed": 0,
        "--output": output,
    }
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    given += [f"--provider-option={key}={value}" for key, value in configuration.provider_options.items()]
    given += [f"--text-encoder={one}" for one in model.beside.get("text_encoders", ())]
    given += [f"--controlnet={one}" for one in model.beside.get("controlnet", ())]
    switches = {
        "allow-fallback": configuration.allow_fallback or None,
        "vae-tiling": configuration.vae_tiling,
        "low-vram": configuration.low_vram,
    }
    flags = [f"--{'' if on else 'no-'}{name}" for name, on in switches.items() if on is not None]
    return [sys.executable, "-m", "sdrt", "generate", PROMPT, *given, *flags, "--quiet"]


def _work(
    work: str, model: Model, configuration: Configuration, rules: Rules, tell: Notify
) -> tuple[dict[str, Any], int | None]:
    """The result of the worker, and the peak of its own memory in bytes."""
    job = {"work": work, "model": model, "configuration": asdict(configuration), "rules": asdict(rules)}
    found: dict[str, Any] | None = None
    with _started(list(_WORKER), stdin=subprocess.PIPE) as process:
        with Watch(lambda: own_bytes(process.pid)) as own:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(job))
                process.stdin.close()
            except BrokenPipeError:  # it ended before it read the job; the code below says why
                pass
            for line in process.stdout:
                found = _heard(json.loads(line), tell) or found
        code = process.wait()
    if found is None:
        raise _ended(code)
    return found, own.peak


def _heard(line: dict[str, Any], tell: Notify) -> dict[str, Any] | None:
    """Handle one line of the worker, and return its result if it has one. Raises the error that the worker reports."""
    if "notice" in line:
        tell(line["notice"])
    if "failed" in line:
        kind: type[SdrtError] = getattr(errors, line["failed"])
        facts = line.get("facts", {})
        if facts.get("path") is not None:
            facts["path"] = Path(facts["path"])
        raise kind(line["message"], **facts)
    result: dict[str, Any] | None = line.get("result")
    return result


def _ended(code: int) -> SdrtError:
    if limit := memory_limit():
        return OutOfMemoryError.advised(
            f"the measuring process ended with code {code} under {limit}, probably because memory ran out",
            "raise the limit, or try a smaller --size, or --batch 1",
        )
    if hasattr(signal, "SIGKILL") and code == -signal.SIGKILL:
        return OutOfMemoryError.advised(
            "the measuring process was killed, probably because memory ran out",
            "try a smaller --size, or --batch 1",
        )
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return SdrtError.advised(
            f"the measuring process was ended by {name}", "run it again, and report it if it happens again"
        )
    return SdrtError(f"the measuring process ended with code {code}; its output is above")


@contextmanager
def _started(command: list[str], **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with this block. Ctrl-C reaches only the parent, which then ends it."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=os.name == "posix", **streams
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _cuda_device(configuration: Configuration) -> int | None:
    """The number of the NVIDIA GPU that a configuration runs on, None if it runs on none."""
    config = session_config(configuration)
    return config.device_id if PROVIDERS[config.name].device == "cuda" else None
