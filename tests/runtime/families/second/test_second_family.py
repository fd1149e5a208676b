"""Runs a second family, added by one row, through the whole pipeline, and compares the images with NumPy's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.common import rng
from sdrt.request.fitting import fit
from sdrt.run.conditioning import Conditioning
from tests.runtime.families.second.duet import (
    CHANNELS,
    DUET,
    FACTOR,
    SCALE,
    SHIFT,
    TIME_SHIFT,
    WIDTHS,
    Array,
    Painter,
)
from tests.runtime.families.second.duet_calls import CALL, GUIDANCE, SIZE, STEPS

# ONNX Runtime and NumPy add float32 numbers in different orders.
TOLERANCE = 2e-5


class Expected:
    """Computes images in NumPy: Euler over shifted levels, guidance, and the VAE's scale and shift."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        self.painter = Painter()
        loaded = pipeline._cache.get()
        self.tokenizers = [loaded.text_encoder(number).tokenizer for number in (0, 1)]

    def encode(self, text: str) -> tuple[Array, Array]:
        """Return the embeddings of a text of one chunk, and its pooled embedding."""
        words_ids, phrases_ids = (tokenizer(text).ids for tokenizer in self.tokenizers)
        return self.painter.encode(words_ids, phrases_ids)

    @staticmethod
    def sigmas(steps: int = STEPS) -> Array:
        def shifted(sigma: Array) -> Array:
            return TIME_SHIFT * sigma / (1 + (TIME_SHIFT - 1) * sigma)

        return np.append(shifted(np.linspace(1, shifted(np.array(0.001)), steps)), 0)

    def denoised(self, x: Array, sigmas: Array, prompt: str, negative: str) -> Array:
        texts = [self.encode(text) for text in (negative, prompt)]
        for sigma, following in pairwise(sigmas):
            without, with_prompt = (self.painter.velocity(x, 1000 * sigma, text, SIZE) for text in texts)
            v = without + np.float32(GUIDANCE) * (with_prompt - without)
            x = x + np.float32(following - sigma) * v
        return x

    def noise(self, seed: int) -> Array:
        return rng.Generator(seed).randn((CHANNELS, SIZE[0] // FACTOR, SIZE[1] // FACTOR))

    def image(self, prompt: str, seed: int, negative: str = "") -> Array:
        return self.painter.decode(self.denoised(self.noise(seed), self.sigmas(), prompt, negative))


def close(made: Any, expected: Any) -> None:
    np.testing.assert_allclose(made, expected, atol=TOLERANCE)


def test_the_image_equals_numpy_s(duet: StableDiffusionPipeline) -> None:
    made = duet("a red cat", negative_prompt="fog", **CALL)
    expected = Expected(duet).image("a red cat", 11, negative="fog")
    assert np.ptp(expected) > 0.5
    close(made.images[0], expected)
    assert set(made.timings) == {"text_encoder", "unet", "vae_decoder"}
    assert len(made.timings["unet"]) == STEPS


def test_images_of_a_batch_have_their_own_conditions(duet: StableDiffusionPipeline) -> None:
    made = duet(["a red cat", "two dogs"], num_images_per_prompt=2, **CALL).images
    expected = Expected(duet)
    for index, prompt in enumerate(["a red cat", "a red cat", "two dogs", "two dogs"]):
        close(made[index], expected.image(prompt, 11 + index))


def test_low_vram_makes_the_same_image(folder: Path, duet: StableDiffusionPipeline) -> None:
    little = StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1, low_vram=True)
    close(little("a red cat", **CALL).images, duet("a red cat", **CALL).images)
    assert {graph.name for graph in little.graphs} <= {"painter", "codec_decoder"}
    assert {graph.name for graph in duet.graphs} == {"words", "phrases", "painter", "codec_decoder"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a (red:1.0) cat", "a red cat", True),
        ("a (red:1.4) cat", "a red cat", False),
        ("cat BREAK dog", "cat", False),
    ],
)
def test_prompts_have_their_grammar(duet: StableDiffusionPipeline, one: str, other: str, same: bool) -> None:
    assert np.array_equal(duet(one, **CALL).images, duet(other, **CALL).images) == same


def test_a_pooled_embedding_is_the_first_chunk_s_without_weights(duet: StableDiffusionPipeline) -> None:
    expected = Expected(duet)
    for text in ("cat BREAK dog", "(cat:1.5) BREAK dog"):
        pooled = duet._cache.get().text_encoder(1).weighted(_stretches(text)).pooled
        close(pooled, expected.encode("cat")[1])
    assert duet._cache.get().text_encoder(0).encode("cat").pooled is None


def _stretches(text: str) -> Any:
    from sdrt.prompts.a1111 import parse_weights

    return parse_weights(text)


def test_tokenizers_may_split_a_text_differently(duet: StableDiffusionPipeline) -> None:
    """The first tokenizer needs two chunks, the second one: it gets an empty chunk."""
    text, expected = "cat " * 30, Expected(duet)
    words, phrases = (list(tokenizer.groups(text)) for tokenizer in expected.tokenizers)
    assert (len(words), len(phrases)) == (90, 30)
    request = fit(Request(prompt=text, **CALL), duet.model.capabilities)
    conditioning = Conditioning.of(request, DUET, duet._cache.get().text_encoder)
    told = conditioning.at(0)["text"]
    assert told.shape == (2, 2 * 77, sum(WIDTHS))
    empty = expected.encode("")[0]
    close(told[1, 77:, WIDTHS[0] :], empty[:, WIDTHS[0] :])
    close(told[0, 77:], empty)


@pytest.mark.parametrize("syntax", ["compel", "plain"])
def test_every_grammar_gives_pooled_embeddings(duet: StableDiffusionPipeline, syntax: str) -> None:
    made = duet("a red cat", prompt_syntax=syntax, **CALL).images
    close(made[0], Expected(duet).image("a red cat", 11))


def test_without_a_size_the_family_s_is_used(duet: StableDiffusionPipeline) -> None:
    assert duet("a", num_inference_steps=1, seed=0).images[0].size == (32, 32)
    assert duet("a", num_inference_steps=1, seed=0).request.guidance_scale == 4.0


def test_image_to_image(duet: StableDiffusionPipeline) -> None:
    given = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), np.uint8)
    made = duet("a cat", image=given, strength=0.6, **CALL).images[0]
    expected = Expected(duet)
    mean, log_variance = expected.painter.moments(given.astype(np.float32) / 127.5 - 1)
    generator = rng.Generator(11)
    sample = mean + np.exp(log_variance.clip(-30, 20) / 2) * generator.randn(mean.shape)
    clean, noise = (sample - np.float32(SHIFT)) * np.float32(SCALE), generator.randn(mean.shape)
    sigmas = expected.sigmas()[2:]
    x = np.float32(1 - sigmas[0]) * clean + np.float32(sigmas[0]) * noise
    close(made, expected.painter.decode(expected.denoised(x, sigmas, "a cat", "")))


def test_inpainting_keeps_what_the_mask_does_not_cover(duet: StableDiffusionPipeline) -> None:
    given = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    mask[:, :20] = 255
    made = duet("a cat", image=given, mask_image=mask, mask_blur=0, **CALL).images[0]
    np.testing.assert_array_equal((made[:, 20:] * 255).round(), given[:, 20:])
    assert np.abs(made[:, :20] * 255 - given[:, :20]).mean() > 5


def test_tasks_of_several_passes(duet: StableDiffusionPipeline) -> None:
    call = CALL | {"num_inference_steps": 2}
    assert duet("a cat", hires_scale=2, **call).images.shape == (1, 48, 80, 3)
    assert duet("a cat", tile_size=24, **call | {"width": 48}).images.shape == (1, 24, 48, 3)
    given = np.full((*SIZE, 3), 90, np.uint8)
    without_size = {key: value for key, value in call.items() if key not in ("height", "width")}
    grown = duet("a cat", image=given, outpaint="left=8", **without_size).images
    assert grown.shape == (1, 24, 48, 3)


def test_a_step_s_embeddings_can_be_changed(duet: StableDiffusionPipeline) -> None:
    shapes = []

    def swap(_pipeline: Any, index: int, _timestep: float, tensors: dict[str, Array]) -> dict[str, Array]:
        embeds = tensors["prompt_embeds"]
        shapes.append(embeds.shape)
        return {"prompt_embeds": embeds[::-1].copy()} if index == 1 else {}

    call = CALL | {"callback_on_step_end_tensor_inputs": ["prompt_embeds"], "callback_on_step_end": swap}
    changed = duet("a red cat", **call).images
    assert shapes == [(2, 77, sum(WIDTHS))] * STEPS
    assert np.abs(changed - duet("a red cat", **CALL).images).max() > 1e-3


@pytest.mark.parametrize("sampler", ["flow_heun", "Flow Euler Karras"])
def test_samplers_for_flow_matching(duet: StableDiffusionPipeline, sampler: str) -> None:
    usual, other = duet("a cat", **CALL).images, duet("a cat", scheduler=sampler, **CALL).images
    assert np.abs(usual - other).max() > 1e-4


def test_other_samplers_are_refused(duet: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="flow"):
        duet("a cat", scheduler="ddim", **CALL)


def test_unsupported_arguments_are_refused(duet: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="which this model needs too; give pooled_prompt_embeds") as error:
        duet(prompt_embeds=np.zeros((1, 77, 8), np.float32), **CALL)
    assert error.value.argument == "pooled_prompt_embeds"
    for name in ("original_size", "negative_target_size"):
        with pytest.raises(RequestError, match=f"{name} has no effect: Duet takes no sizes"):
            duet("a cat", **CALL, **{name: (64, 64)})
