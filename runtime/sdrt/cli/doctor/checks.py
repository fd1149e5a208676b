"""The checks of `sdrt doctor`. Each check relies on the ones before it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sdrt.cli.doctor.check_result import Finding, Status
from sdrt.cli.doctor.memory import check_available, check_memory
from sdrt.cli.doctor.onnx_runtime import check_onnxruntime
from sdrt.cli.models.summary import human_size
from sdrt.cli.spellings import in_options
from sdrt.common.cache import cache_root
from sdrt.common.extras import install_command, missing_modules
from sdrt.common.interrupt import stop_if_asked
from sdrt.common.limits import advice_on_limits, is_of_memory, memory_limit
from sdrt.errors import OutOfMemoryError, RequestError, SdrtError
from sdrt.model_folder.embedded import DEFAULT_MODEL
from sdrt.onnx.cpu import CPUINFO, cpu_flags
from sdrt.onnx.providers import PROVIDERS

__all__ = ["run_checks"]

LOW_SPACE = 10 * 2**30
"""Free bytes. With less, an export of SD 1.5 (4 GB checkpoint, 4 GB model) may not fit."""

CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
}
"""Flag in /proc/cpuinfo → name of the feature, which speeds up ONNX Runtime's CPU kernels."""

REQUIRED = {
    "numpy": "numpy",
    "PIL.Image": "pillow",
    "tokenizers": "tokenizers",
    "huggingface_hub": "huggingface-hub",
    "platformdirs": "platformdirs",
    "rich.progress": "rich",
    "filelock": "filelock",
}
"""Module → distribution. The runtime needs them, but this command starts without them."""


def run_checks(
    model: str,
    provider: str,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    batch: int = 1,
    tell: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Iterator[Finding]:
    """Yield every finding as soon as it is known.

    The last checks make an image with `model` on `provider`, and estimate the memory of `sizes` (width, height) in
    batches of `batch` images. `tell` receives progress messages. `options` go to `from_pretrained`.
    """
    yield from check_platform()
    if broken := list(check_libraries()):
        # The checks below import these libraries.
        yield from broken
        return
    yield from check_onnxruntime()
    yield from check_available()
    yield from check_cache()
    yield from check_extras()
    if memory_limit() is not None:
        # First, in processes of its own, because an image that does not fit may end this one.
        yield from _checks_under_a_limit(model, provider, sizes, batch, tell, **options)
        return
    generation = list(check_generation(model, provider, **options))
    yield from generation
    if sizes and not _has_error(generation):
        yield from check_memory(model, provider, sizes, batch, tell, **options)


def _checks_under_a_limit(
    model: str,
    provider: str,
    sizes: Sequence[tuple[int, int]] | None,
    batch: int,
    tell: Callable[[str], None],
    **options: Any,
) -> Iterator[Finding]:
    memory = list(check_memory(model, provider, sizes or [(None, None)], batch, tell, **options))
    yield from memory
    if not _has_error(memory):
        yield from check_generation(model, provider, **options)


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(finding.status is Status.ERROR for finding in findings)


def check_platform() -> Iterator[Finding]:
    """Report sdrt, Python, the operating system and the CPU."""
    from sdrt.common.version import __version__

    yield Finding(name="sdrt", detail=__version__)
    yield Finding(name="Python", detail=f"{platform.python_version()} at {sys.executable}")
    yield Finding(name="platform", detail=platform.platform())
    features = ", ".join(cpu_features(CPUINFO))
    yield Finding(name="CPU", detail=f"{os.cpu_count()} cores{f', {features}' if features else ''}")


def cpu_features(cpuinfo: Path) -> list[str]:
    """Names of the known features that `cpuinfo` lists; empty if the file does not exist."""
    flags = cpu_flags(cpuinfo)
    return [name for flag, name in CPU_FEATURES.items() if flag in flags]


def check_libraries() -> Iterator[Finding]:
    """Report each required library that cannot be imported."""
    for module, distribution in REQUIRED.items():
        try:
            importlib.import_module(module)
        except (ImportError, AttributeError, OSError, MemoryError) as error:
            stop_if_asked()
            lacks_memory = is_of_memory(error)
            yield Finding(
                name=distribution,
                detail=f"cannot be imported ({error})",
                status=Status.ERROR,
                remedy=advice_on_limits()
                if lacks_memory
                else f"pip install --force-reinstall {distribution}",
                exit_code=OutOfMemoryError.exit_code if lacks_memory else 1,
            )


def check_cache() -> Iterator[Finding]:
    """Report where downloads and exports are stored, and whether they fit."""
    remedy = "set SDRT_CACHE to a folder that you can write to"
    try:
        cache = cache_root().absolute()
        existing = next(path for path in (cache, *cache.parents) if path.exists())
        free = shutil.disk_usage(existing).free
    except (RequestError, OSError) as error:
        yield Finding(name="cache", detail=str(error), status=Status.WARNING, remedy=remedy)
        return
    detail = f"{cache}, {human_size(free)} free"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield Finding(name="cache", detail=f"{detail}, not writable", status=Status.WARNING, remedy=remedy)
    elif free < LOW_SPACE:
        yield Finding(
            name="cache",
            detail=detail,
            status=Status.WARNING,
            remedy=f"exporting a model needs about {human_size(LOW_SPACE)}; set SDRT_CACHE to a larger disk",
        )
    else:
        yield Finding(name="cache", detail=detail)


def check_extras() -> Iterator[Finding]:
    """Report whether this installation can export checkpoints."""
    if missing := missing_modules("export"):
        yield Finding(
            name="export",
            detail=f"not installed (no {', '.join(missing)}); models that are already exported run",
            status=Status.NOTE,
            remedy=f"to export checkpoints: {install_command('export')}",
        )
    else:
        yield Finding(name="export", detail="installed")


def _takes_whole_graphs(provider: str) -> bool:
    row = PROVIDERS.get(provider)
    return row is not None and row.whole


def check_generation(model: str, provider: str, **options: Any) -> Iterator[Finding]:
    """Make an image in one step."""
    from sdrt.common.notices import SdrtWarning
    from sdrt.pipeline import StableDiffusionPipeline

    if model == DEFAULT_MODEL and _takes_whole_graphs(provider) and not options.get("allow_fallback"):
        yield Finding(
            name="generation",
            detail=f"not tried, because {provider} must run the whole graph, and {model} has operators that only "
            "ONNX Runtime has",
            status=Status.NOTE,
            remedy=f"to try it: sdrt doctor --provider {provider} -m MODEL, a model exported with --target portable",
        )
        return
    started = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SdrtWarning)
            with StableDiffusionPipeline.from_pretrained(model, provider=provider, **options) as pipeline:
                pipeline("a test", num_inference_steps=1, seed=0)
            detail = f"{model} on {pipeline.provider}, one step in {time.perf_counter() - started:.1f} s"
    except SdrtError as error:
        yield Finding(
            name="generation", detail=in_options(error), status=Status.ERROR, exit_code=type(error).exit_code
        )
        return
    notices = [str(one.message) for one in caught if issubclass(one.category, SdrtWarning)]
    yield Finding(name="generation", detail="; ".join([detail, *notices]))
