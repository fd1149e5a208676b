"""What an error about memory advises: only what the run has not done yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdrt import OutOfMemoryError, StableDiffusionPipeline
from sdrt.common.limits import MemoryLimit
from sdrt.onnx.buffers import Bound
from sdrt.onnx.error_messages import run_failure

FEWER, SMALLER_ONES = "make fewer images at once", "make smaller ones"
SMALLER, LOW_VRAM = "make a smaller image", "use low_vram (--low-vram)"
WINDOWS, TILING = "denoise it in windows (tile_size", "leave out vae_tiling=False"
ENLARGE, OTHERS = "enlarge less (hires_scale", "close other programs, or use a smaller model"
LIMIT = "raise the limit of 300 MB (ulimit -v)"
PROCESSES, THREADS = "raise the limit on processes (ulimit -u", "use fewer threads"
ALL = {FEWER, SMALLER_ONES, SMALLER, LOW_VRAM, WINDOWS, TILING, ENLARGE, OTHERS, LIMIT, PROCESSES, THREADS}


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, None)


def limited(monkeypatch: pytest.MonkeyPatch, limit: MemoryLimit | None) -> None:
    for module in ("sdrt.run.advice", "sdrt.common.limits"):
        monkeypatch.setattr(f"{module}.memory_limit", lambda: limit)


def advised(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: dict[str, Any],
    *,
    fails: str,
    reason: str,
    **options: Any,
) -> set[str]:
    """What is advised when a component fails."""
    plain = Bound.__call__

    def run(bound: Bound) -> Any:
        if bound._component.name == fails:
            raise run_failure(bound._component._subject, RuntimeError(reason))
        return plain(bound)

    pipeline = StableDiffusionPipeline.from_pretrained(model, notify=lambda message: None, **options)
    monkeypatch.setattr(Bound, "__call__", run)
    with pytest.raises(OutOfMemoryError) as caught:
        pipeline("a", num_inference_steps=1, **call)
    error = caught.value
    assert error.component == fails
    assert str(error).startswith(f"{fails} ran out of memory on cpu: {error.fits}; ")
    assert str(error.fits).endswith("; `sdrt doctor --size` says what fits")
    return {one for one in ALL if one in str(error.fits)}


SMALL = {"width": 64, "height": 64}


@pytest.mark.parametrize(
    ("call", "options", "fails", "expected"),
    [
        (SMALL, {"low_vram": False}, "unet", {LOW_VRAM}),
        (SMALL, {"low_vram": True}, "unet", {OTHERS}),
        # It was tried with low_vram, and that ran out of memory too.
        (SMALL, {}, "unet", {OTHERS}),
        (SMALL | {"num_images_per_prompt": 2}, {"low_vram": True}, "unet", {FEWER}),
        ({"width": 256, "height": 64}, {"low_vram": True}, "unet", {SMALLER}),
        ({"width": 256, "height": 64, "num_images_per_prompt": 2}, {}, "unet", {FEWER, SMALLER_ONES}),
        ({"width": 640, "height": 64}, {"low_vram": True}, "unet", {SMALLER, WINDOWS}),
        ({"width": 640, "height": 64, "tile_size": 64}, {"low_vram": True}, "unet", {SMALLER}),
        (SMALL, {"low_vram": True, "vae_tiling": False}, "vae_decoder", {TILING}),
        (SMALL | {"hires_scale": 2, "hires_strength": 1.0}, {"low_vram": True}, "unet", {ENLARGE}),
    ],
)
def test_nothing_is_advised_that_was_done(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: dict[str, Any],
    options: dict[str, Any],
    fails: str,
    expected: set[str],
) -> None:
    reason = "Failed to allocate memory for requested buffer of size 1048576"
    assert advised(tiny_model, monkeypatch, call, fails=fails, reason=reason, **options) == expected
    monkeypatch.undo()
    limited(monkeypatch, MemoryLimit(amount=300_000_000, option="-v", row="VmSize"))
    found = advised(tiny_model, monkeypatch, call, fails=fails, reason=reason, **options)
    assert found == expected - {OTHERS} | {LIMIT}


@pytest.mark.parametrize("reason", ["pthread_create failed, error code: 11", "can't start new thread"])
def test_threads_that_cannot_be_started(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    expected = {PROCESSES, THREADS}
    assert advised(tiny_model, monkeypatch, SMALL, fails="unet", reason=reason) == expected
    monkeypatch.undo()
    limited(monkeypatch, None)
    found = advised(tiny_model, monkeypatch, SMALL, fails="unet", reason=reason, threads=1)
    assert found == {PROCESSES}
