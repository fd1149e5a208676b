"""Requests: what is refused, with which words, and what is filled in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError
from sdrt.families.capabilities import Capabilities
from sdrt.request.fitted import FittedRequest
from sdrt.request.fitting import fit

LIMITS = Capabilities(
    latent_channels=5,
    embeds_width=7,
    vae_scale_factor=8,
    default_height=64,
    default_width=128,
    size_step=8,
)
EMBEDS = np.zeros((2, 77, 7), np.float32)


def ask(**options: Any) -> FittedRequest:
    """A request that fits LIMITS; a prompt unless embeddings are given."""
    return fit(Request(**({} if "prompt_embeds" in options else {"prompt": "a cat"}) | options), LIMITS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": None}, "neither"),
        ({"prompt": "a", "prompt_embeds": EMBEDS}, "both"),
        ({"negative_prompt": "a", "negative_prompt_embeds": EMBEDS}, "both"),
        ({"prompt": 3}, "prompt is int"),
        ({"prompt": []}, "non-empty list"),
        ({"prompt": ["a", 1]}, "list of strings"),
        ({"prompt": "x" * 5_000_000}, "5000000 characters: expected at most 20000"),
        ({"negative_prompt": "x" * 20_001}, "negative_prompt has 20001"),
        ({"prompt": "\ud83d"}, "surrogate"),
        ({"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]}, "3 strings for 2 prompts"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0: expected a whole number from 1 to 1000"),
        ({"num_inference_steps": 1001}, "is 1001"),
        ({"num_inference_steps": 1.5}, "is 1.5"),
        ({"num_inference_steps": True}, "is True"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"guidance_scale": "7"}, "guidance_scale is '7'"),
        ({"eta": 1.1}, "eta is 1.1"),
        ({"eta": -0.1}, "eta is -0.1"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"num_images_per_prompt": 10**9}, "from 1 to 1024"),
        (
            {"seed": 2**64},
            r"seed is 18446744073709551616: expected a whole number from -2\*\*63 to 2\*\*64 - 1",
        ),
        ({"seed": -(2**63) - 1}, "seed is -9223372036854775809"),
        ({"seed": [1, 2]}, r"seed is \[1, 2\], for 1 images: expected one seed, or one for each image"),
        ({"seed": [1, 2.5], "num_images_per_prompt": 2}, "seed is 2.5"),
        ({"seed": []}, r"seed is \[\], for 1 images"),
        ({"seed": "0"}, "seed is '0'"),
        ({"height": 0}, "height is 0"),
        ({"width": -8}, "width is -8"),
        ({"height": 65}, "height is 65: expected a multiple of 8, such as 64 or 72"),
        ({"width": 2056}, r"width is 2056: expected at most 2048.*max_size=2056 \(--max-size 2056\)"),
        ({"height": 64.0}, "height is 64.0"),
        ({"max_size": 0}, "max_size is 0"),
        ({"output_type": "jpg"}, "output_type is 'jpg': expected one of pil, np, latent"),
        ({"clip_skip": -1}, "clip_skip is -1"),
        ({"latents": np.zeros((1, 5, 8, 8), np.int64)}, "latents is int64"),
        ({"latents": np.zeros((5, 8, 8))}, "4 dimensions"),
        (
            {"latents": np.zeros((1, 4, 8, 16))},
            r"latents has shape \(1, 4, 8, 16\): expected \(1, 5, 8, 16\)",
        ),
        ({"latents": np.zeros((1, 5, 8, 8)), "height": 72, "width": 64}, r"expected \(1, 5, 9, 8\)"),
        ({"latents": np.full((1, 5, 8, 8), np.nan)}, "latents contains NaN"),
        ({"prompt_embeds": np.zeros((1, 77, 8))}, r"expected \(any, any, 7\)"),
        ({"prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[:1]}, r"expected \(2, 77, 7\)"),
        ({"prompt_embeds": EMBEDS[:, :, 0]}, "3 dimensions"),
    ],
)
def test_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        ask(**options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_sizes_come_from_the_model() -> None:
    request = ask()
    assert (request.height, request.width) == (64, 128)
    assert (ask(height=72, width=88).height, ask(height=72).width) == (72, 128)


def test_sizes_come_from_latents_when_none_are_given() -> None:
    request = ask(latents=np.zeros((1, 5, 3, 11)))
    assert (request.height, request.width) == (24, 88)


def test_max_size_raises_the_limit() -> None:
    assert ask(width=4096, max_size=4096).width == 4096
    with pytest.raises(RequestError, match="at most 100"):
        ask(width=104, height=64, max_size=100)


def test_a_traced_model_takes_coarser_sizes() -> None:
    coarse = Capabilities(**(vars(LIMITS) | {"size_step": 64}))
    with pytest.raises(RequestError, match="multiple of 64; export the checkpoint again with sdrt export"):
        fit(Request(prompt="a", height=72, width=64), coarse)


def test_seeds_count_up_and_a_missing_one_is_drawn() -> None:
    assert ask(seed=7, prompt=["a", "b"], num_images_per_prompt=2).seeds == (7, 8, 9, 10)
    assert ask(seed=0).seed == 0
    assert ask().seed != ask().seed


def test_seeds_of_64_bits_and_negative_ones_are_those_of_torch() -> None:
    assert ask(seed=2**63 + 9).seeds == (2**63 + 9,)
    assert ask(seed=-2, num_images_per_prompt=3).seeds == (2**64 - 2, 2**64 - 1, 0)
    assert ask(seed=-1).seed != ask(seed=-1).seed
    assert ask(seed=np.int64(5)).seed == 5


def test_a_seed_for_each_image() -> None:
    assert ask(seed=[3, 900, 4], num_images_per_prompt=3).seeds == (3, 900, 4)
    assert ask(seed=np.array([3, 4]), prompt=["a", "b"]).seed == 3
    drawn = ask(seed=[-1, 5, -1], num_images_per_prompt=3).seeds
    assert drawn[1] == 5
    assert drawn[0] != drawn[2]


def test_an_empty_prompt_is_allowed_and_one_negative_serves_all() -> None:
    request = ask(prompt=["", "b"], negative_prompt="bad")
    assert request.prompts == ["", "b"]
    assert request.negative_prompts == ["bad", "bad"]


def test_without_a_text_encoder_only_embeddings_do() -> None:
    capabilities = Capabilities(**(vars(LIMITS) | {"has_text_encoder": False}))
    with pytest.raises(RequestError, match="give prompt_embeds"):
        fit(Request(prompt="a"), capabilities)
    with pytest.raises(RequestError, match="negative_prompt_embeds, or guidance_scale=1"):
        fit(Request(prompt_embeds=EMBEDS), capabilities)
    assert fit(Request(prompt_embeds=EMBEDS, guidance_scale=1.0), capabilities).num_images == 2


def test_a_fitted_request_has_no_open_default_and_is_no_request() -> None:
    asked = Request(prompt="a cat", hires_scale=2, tile_size=64)
    fitted = fit(asked, LIMITS)
    assert (fitted.size, fitted.guidance_scale, fitted.strength) == ((64, 128), 7.5, 1.0)
    assert (fitted.hires_steps, fitted.tile_overlap) == (50, 16)
    assert not isinstance(fitted, Request)
    completed = fitted.completed
    assert (completed.height, completed.width, completed.guidance_scale) == (64, 128, 7.5)
    # What the request left to the task stays open, so that its metadata do not claim that it was asked.
    assert (completed.hires_steps, completed.tile_overlap) == (None, None)
