"""Starting the processes that measure, and watching them from outside."""

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
from sdrt.benchmark.measure import Model
from sdrt.benchmark.memory import Watch, own_bytes
from sdrt.benchmark.nvidia import library, used_bytes
from sdrt.common.extras import install_command
from sdrt.common.notices import Notify
from sdrt.errors import OutOfMemoryError, SdrtError
from sdrt.onnx.providers import PROVIDERS, SessionConfig

__all__ = ["estimated", "first_pictures", "measured", "profiled"]

_WORKER = (sys.executable, "-m", "sdrt.benchmark.worker")


def measured(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> dict[str, Any]:
    """What `measure` tells of a configuration, from a fresh process, and the peaks of that process's memory."""
    with ExitStack() as watches:
        before, device = None, None
        if (number := _cuda_device(configuration)) is not None:
            watches.enter_context(library())
            before = used_bytes(number)
            if before is None:
                tell(
                    f"the device's memory is not measured, as nothing tells it: {install_command('benchmark')}"
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
    """What `ort_profile.profile` tells of a configuration, from a fresh process."""
    if _cuda_device(configuration) is not None:
        tell("of operators on a GPU ONNX Runtime's profile tells how long they took to start, not to run")
    return _work("profile", model, configuration, rules, tell)[0]


def estimated(model: Model, configuration: Configuration, tell: Notify) -> Estimate | None:
    """What a configuration takes, of what `capacity.probe` measures in a fresh process; None where nothing tells."""
    return estimate(_work("memory", model, configuration, Rules(), tell)[0])


def first_pictures(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> list[float]:
    """Seconds from the start of `sdrt generate` until it names its first picture, each in a fresh process.

    The files were read before, so the disk is warm. Raises `SdrtError` when one fails.
    """
    deadline = time.perf_counter() + rules.time_limit
    tell("first pictures, from the start of a process")
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
                f"sdrt generate, to measure a first picture, failed: {told.rpartition('error: ')[2]}"
            )
    return seconds


def _generate_command(model: Model, configuration: Configuration, output: Path) -> list[str]:
    options = {
        "--model": model[0],
        "--width": configuration.width,
        "--height": configuration.height,
        "--batch-size": configuration.batch,
        "--steps": configuration.steps,
        "--guidance-scale": configuration.guidance_scale,
        "--scheduler": configuration.scheduler,
        "--spacing": configuration.spacing,
        "--provider": configuration.provider,
        "--threads": configuration.threads,
        "--max-size": configuration.max_size,
        "--seed": 0,
        "--output": output,
    }
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    given += [f"--provider-option={key}={value}" for key, value in configuration.provider_options.items()]
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
    """The worker's result, and the most that the system could not have taken back from it, in bytes."""
    job = {"work": work, "model": model, "configuration": asdict(configuration), "rules": asdict(rules)}
    found: dict[str, Any] | None = None
    with _started(list(_WORKER), stdin=subprocess.PIPE) as process:
        with Watch(lambda: own_bytes(process.pid)) as own:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(job))
                process.stdin.close()
            except BrokenPipeError:  # it ended before it read; why is told below
                pass
            for line in process.stdout:
                found = _heard(json.loads(line), tell) or found
        code = process.wait()
    if found is None:
        raise _ended(code)
    return found, own.peak


def _heard(line: dict[str, Any], tell: Notify) -> dict[str, Any] | None:
    """The result, of the line that has it. Raises the failure that the worker tells of."""
    if "notice" in line:
        tell(line["notice"])
    if "failed" in line:
        kind: type[SdrtError] = getattr(errors, line["failed"])
        raise kind(line["message"])
    result: dict[str, Any] | None = line.get("result")
    return result


def _ended(code: int) -> SdrtError:
    if hasattr(signal, "SIGKILL") and code == -signal.SIGKILL:
        return OutOfMemoryError(
            "the process that measured was killed, as the system does when memory runs out: try a smaller --size, or "
            "--batch 1"
        )
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return SdrtError(
            f"the process that measured was ended by {name}: run it again; if it goes on, report it"
        )
    return SdrtError(f"the process that measured ended with code {code}; what it said is above")


@contextmanager
def _started(command: list[str], **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive this; Ctrl-C is ours alone, which ends it."""
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
    """The number of the GPU that a configuration runs on; None where it runs on none of NVIDIA's."""
    config = SessionConfig(provider=configuration.provider)
    return config.device_id if PROVIDERS[config.name].device == "cuda" else None
