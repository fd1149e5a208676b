"""`generator=`: the seeds, or the noise, that other libraries' generators stand for.

sdrt takes a generator only if the image is then the one that diffusers makes with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import refused, wrong_value
from sdrt.request.checks import both_given

if TYPE_CHECKING:
    from sdrt.request.request import Request
    from sdrt.request.table import Arguments
    from sdrt.run.planned import PlannedRequest

__all__ = ["mark_used", "with_generator"]

_FITS = "a fresh torch.Generator on the CPU, a list with one for each image, or a numpy RandomState; or give seed="


def with_generator(request: Request, arguments: Arguments, plan: Callable[[], PlannedRequest]) -> Request:
    """Return the request with the seeds, or the noise, that the call's generator stands for.

    `plan` plans the request, whose size the noise of a RandomState needs.

    Raises:
        RequestError: there is a seed too, or the images would not be those that diffusers makes.
    """
    generator = arguments.generator
    if generator is None:
        return request
    if arguments.seed is not None:
        raise both_given("generator", "seed")
    if not isinstance(generator, np.random.RandomState):
        return replace(request, seed=_seeds_of(generator, request.num_images))
    planned = plan()
    return replace(request, latents=_numpy_noise(generator, planned))


def _seeds_of(generator: Any, num_images: int) -> list[int]:
    """Return the seed of each image for a torch generator, or for a list with one generator for each image.

    Raises:
        RequestError: it is not a torch generator, is on another device, or has drawn numbers already. One generator
            draws the noise of several images together, which is not the noise of any seeds.
    """
    given = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if len(given) != num_images:
        problem = f"is {'a list of ' if given != [generator] else ''}{len(given)}, for {num_images} images"
        raise refused("generator", problem, "a list with a torch.Generator for each image, or seed=")
    if len({id(one) for one in given}) != len(given):
        raise refused("generator", "contains the same generator twice", "one for each image")
    return [_seed_of(one) for one in given]


def _seed_of(generator: Any) -> int:
    if not callable(getattr(generator, "initial_seed", None)):
        raise wrong_value("generator", generator, _FITS)
    device = str(getattr(generator, "device", "cpu"))
    if not device.startswith("cpu"):
        raise refused(
            "generator",
            f"is on {device}, which draws other noise than the CPU",
            'torch.Generator("cpu"), or seed=',
        )
    seed: int = generator.initial_seed()
    if hasattr(generator, "get_state"):
        fresh = type(generator)().manual_seed(seed)
        if not np.array_equal(np.asarray(fresh.get_state()), np.asarray(generator.get_state())):
            raise refused(
                "generator",
                "has drawn numbers already, and sdrt cannot continue it",
                f"a fresh one, as after generator.manual_seed({seed}), or seed=",
            )
    return seed


def mark_used(generator: Any) -> None:
    """Draw a number from each torch generator, as a run of diffusers draws its noise from them.

    The next call with the same generator is then an error, and not the same image again.
    """
    torch = sys.modules.get("torch")
    for one in generator if isinstance(generator, (list, tuple)) else [generator]:
        if torch is not None and isinstance(one, torch.Generator):
            torch.rand(1, generator=one)


def _numpy_noise(generator: np.random.RandomState, planned: PlannedRequest) -> NDArray[np.float32]:
    """Draw the first latents as diffusers' ONNX pipelines do: all images together, in double precision.

    Raises:
        RequestError: the request draws more noise, which those pipelines do not draw from their RandomState, or not
            at once.
    """
    request, scheduler, capabilities = planned.request, planned.scheduler, planned.model.capabilities
    reasons = {
        f"the scheduler {scheduler.name} adds noise in each step": scheduler.stochastic(request.eta),
        "the call has an image": request.image is not None,
        "the call has latents": request.latents is not None,
        "hires_scale draws noise twice": request.hires_scale is not None,
    }
    for reason, applies in reasons.items():
        if applies:
            problem = f"is a numpy RandomState, but {reason}"
            raise refused("generator", problem, "a torch.Generator, or seed=")
    factor = capabilities.vae_scale_factor
    shape = (capabilities.latent_channels, request.height // factor, request.width // factor)
    return np.asarray(generator.randn(request.num_images, *shape), dtype=np.float32)
