"""Advises what a user can still do when memory runs out, without measures that the run has taken already."""

from __future__ import annotations

from collections.abc import Iterator

from sdrt.common.limits import advice_on_limits, memory_limit
from sdrt.errors import OutOfMemoryError
from sdrt.onnx.error_messages import FEWER
from sdrt.onnx.providers import SessionConfig
from sdrt.request.fitted import FittedRequest

__all__ = ["with_advice"]

# The fewest pixels of a side for which smaller images are advised.
_SMALL = 128
_OF_THREADS = ("pthread_create failed", "can't start new thread")


def with_advice(
    error: OutOfMemoryError, config: SessionConfig, request: FittedRequest | None, *, low_vram: bool
) -> OutOfMemoryError:
    """The error with advice for this request. An error that has advice of its own stays as it is.

    `request` is None if memory ran out before there was one. `low_vram` says whether the run used it.
    """
    if error.fits != FEWER:
        return error
    if any(mark in str(error) for mark in _OF_THREADS) and not memory_limit():
        steps = [] if config.threads == 1 else ["use fewer threads (threads, --threads)"]
        steps.append("raise the limit on processes (ulimit -u, or that of the container)")
    else:
        steps = [*_smaller(request), *_thriftier(error, config, request, low_vram=low_vram)]
    if memory_limit() or not steps:
        steps.append(advice_on_limits())
    fits = f"{', or '.join(steps)}; `sdrt doctor --size` says what fits"
    return OutOfMemoryError(str(error).replace(FEWER, fits), **vars(error) | {"fits": fits})


def _smaller(request: FittedRequest | None) -> Iterator[str]:
    if request is None:
        return
    if request.num_images > 1:
        yield "make fewer images at once (num_images_per_prompt, --batch-size)"
    if request.hires_scale is not None:
        yield "enlarge less (hires_scale, --hires-scale)"
    elif max(request.size) > _SMALL:
        yield (
            "make smaller ones (width, height)"
            if request.num_images > 1
            else ("make a smaller image (width, height)")
        )


def _thriftier(
    error: OutOfMemoryError, config: SessionConfig, request: FittedRequest | None, *, low_vram: bool
) -> Iterator[str]:
    if not low_vram:
        yield "use low_vram (--low-vram)"
    elif config.vae_tiling is False and (error.component or "vae").startswith("vae"):
        yield "leave out vae_tiling=False (--no-vae-tiling)"
    elif request is not None and request.tile_size is None and max(request.size) > 4 * _SMALL:
        yield "denoise it in windows (tile_size, --tile-size)"
