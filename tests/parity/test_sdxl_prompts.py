"""Prompts of every grammar over SDXL's two text encoders, and what the models refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.run.conditioning import Conditioning
from tests.parity.image_prompts import given_image

torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

Folders = Callable[[str], Path]
Pipelines = Callable[[str], Any]
Array = np.ndarray[Any, Any]
# Hidden states are not normalised; both sides compute in float32.
CLOSE = 5e-5
CALL: Mapping[str, Any] = {"num_inference_steps": 4, "seed": 1, "height": 64, "width": 64}


@functools.cache
def load(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=lambda message: None
    )


def told(folder: Path, step: int = 0, **given: Any) -> Mapping[str, Array]:
    """What the U-Net gets in a step."""
    pipeline = load(folder)
    request = pipeline.plan(Request(**{**CALL, **given})).request
    components = pipeline._cache.get()
    conditioning = Conditioning.of(request, pipeline.model.family, components.text_encoder, components.words)
    return conditioning.at(step)


class Theirs:
    """transformers' text encoders, on token ids [77]."""

    def __init__(self, pipeline: Any) -> None:
        self.encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
        self.tokenizers = [pipeline.tokenizer, pipeline.tokenizer_2]

    def chunk(self, number: int, text: str) -> tuple[Array, Array]:
        """The penultimate states [77, width] of a text, and the pooled embedding."""
        ids = self.tokenizers[number](text, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            out = self.encoders[number](ids.input_ids, output_hidden_states=True)
        return out.hidden_states[-2][0].numpy(), out[0][0].numpy()

    def both(self, text: str) -> Array:
        return np.concatenate([self.chunk(number, text)[0] for number in (0, 1)], axis=-1)


@pytest.fixture
def theirs(diffusers_pipeline: Pipelines) -> Theirs:
    return Theirs(diffusers_pipeline("xl"))


def test_long_prompts_have_chunks_of_both_encoders(sdrt_folder: Folders, theirs: Theirs) -> None:
    """The pooled embedding is that of the first chunk, as in A1111."""
    found = told(sdrt_folder("xl"), prompt="a cat BREAK a red house", negative_prompt="fog")
    embeds, pooled = found["encoder_hidden_states"], found["text_embeds"]
    assert embeds.shape == (2, 2 * 77, 64)
    for row, texts in enumerate([("fog", ""), ("a cat", "a red house")]):
        for number, text in enumerate(texts):
            expected = theirs.both(text)
            np.testing.assert_allclose(embeds[row, 77 * number : 77 * (number + 1)], expected, atol=CLOSE)
        np.testing.assert_allclose(pooled[row], theirs.chunk(1, texts[0])[1], atol=CLOSE)


def test_zeros_are_as_long_as_the_prompt(sdrt_folder: Folders) -> None:
    found = told(sdrt_folder("xl"), prompt="a cat BREAK a red house")
    assert not found["encoder_hidden_states"][0].any()
    assert not found["text_embeds"][0].any()
    assert found["encoder_hidden_states"].shape == (2, 2 * 77, 64)


def test_weights_restore_the_mean_of_each_encoder(sdrt_folder: Folders, theirs: Theirs) -> None:
    """A1111 multiplies what each text encoder makes and restores its mean. The pooled embedding has no weights."""
    found = told(sdrt_folder("xl"), prompt="a (cat:1.5) sat", negative_prompt="fog")
    parts = []
    tokens = [len(theirs.tokenizers[0](text).input_ids) - 2 for text in ("a", "cat")]
    for number in (0, 1):
        states, pooled = theirs.chunk(number, "a cat sat")
        weights = np.ones((77, 1), np.float32)
        weights[1 + tokens[0] : 1 + sum(tokens)] = 1.5
        weighed = states * weights
        parts.append(weighed * states.mean() / weighed.mean())
    np.testing.assert_allclose(
        found["encoder_hidden_states"][1], np.concatenate(parts, axis=-1), atol=4 * CLOSE
    )
    np.testing.assert_allclose(found["text_embeds"][1], pooled, atol=CLOSE)


def test_editing_changes_the_pooled_embedding_too(sdrt_folder: Folders, theirs: Theirs) -> None:
    for step, text in ((0, "a cat"), (3, "a red house")):
        found = told(sdrt_folder("xl"), step, prompt="a [cat:red house:0.5]")
        np.testing.assert_allclose(found["encoder_hidden_states"][1], theirs.both(text), atol=CLOSE)
        np.testing.assert_allclose(found["text_embeds"][1], theirs.chunk(1, text)[1], atol=CLOSE)


def test_and_joins_parts_of_both_prompts(sdrt_folder: Folders, theirs: Theirs) -> None:
    found = told(sdrt_folder("xl"), prompt="a cat AND a house:0.5", prompt_2="a dog AND a tree")
    embeds, pooled = found["encoder_hidden_states"], found["text_embeds"]
    assert embeds.shape[0] == 3
    for row, (first, second) in enumerate([("a cat", "a dog"), ("a house", "a tree")], start=1):
        expected = [theirs.chunk(0, first)[0], theirs.chunk(1, second)[0]]
        np.testing.assert_allclose(embeds[row], np.concatenate(expected, axis=-1), atol=CLOSE)
        np.testing.assert_allclose(pooled[row], theirs.chunk(1, second)[1], atol=CLOSE)
    same = told(sdrt_folder("xl"), prompt="a cat AND a house", prompt_2="a dog")
    np.testing.assert_array_equal(same["text_embeds"][1], same["text_embeds"][2])
    with pytest.raises(RequestError, match="AND joins 3 and 2 parts in prompt and prompt_2"):
        told(sdrt_folder("xl"), prompt="a AND b AND c", prompt_2="d AND e")


def test_compel_pools_the_text_with_its_signs(sdrt_folder: Folders, theirs: Theirs) -> None:
    found = told(sdrt_folder("xl"), prompt="a cat++ sat", negative_prompt="fog", prompt_syntax="compel")
    np.testing.assert_allclose(found["text_embeds"][1], theirs.chunk(1, "a cat++ sat")[1], atol=CLOSE)
    states, empty = theirs.both("a cat sat"), theirs.both("")
    # The end of the text has no weight; the weighed words are further away from the empty prompt.
    unlike = np.abs(found["encoder_hidden_states"][1] - states).max(axis=-1) > 1e-3
    assert 0 < unlike.sum() <= 3
    place = int(unlike.argmax())
    np.testing.assert_allclose(
        found["encoder_hidden_states"][1, place],
        empty[place] + (states[place] - empty[place]) * 1.1**2,
        atol=4 * CLOSE,
    )


def words(value: Any) -> str:
    """A case's name. An image's own has an address, which differs from process to process."""
    if not isinstance(value, dict):
        return str(value)
    return (
        " ".join(f"{key}={one}" for key, one in value.items() if isinstance(one, (int, float, str, tuple)))
        or "image"
    )


@pytest.mark.parametrize(
    "given",
    [
        {"hires_scale": 1.5},
        {"hires_scale": 1.5, "hires_upscaler": "lanczos", "prompt_2": "a dog", "num_images_per_prompt": 2},
        {"tile_size": 48, "width": 96},
        {"image": given_image(64, 64), "outpaint": "left=16", "height": None, "width": None},
        {"image": given_image(64, 64), "mask_image": given_image(64, 64), "padding_mask_crop": 8},
    ],
    ids=words,
)
@pytest.mark.parametrize("variant", ["xl", "xl-refiner"])
def test_tasks_of_several_passes(sdrt_folder: Folders, variant: str, given: dict[str, Any]) -> None:
    if variant == "xl-refiner":
        given = {name: value for name, value in given.items() if name != "prompt_2"}
    options = {**CALL, **given, "output_type": "np"}
    made = load(sdrt_folder(variant))("a cat", **options).images
    again = load(sdrt_folder(variant))("a cat", **options).images
    np.testing.assert_array_equal(made, again)
    other = load(sdrt_folder(variant))("a cat", **options, original_size=(9, 9)).images
    assert np.abs(made - other).max() > 1 / 255


def test_low_vram_makes_the_same_image(sdrt_folder: Folders) -> None:
    little = StableDiffusionPipeline.from_pretrained(
        sdrt_folder("xl"), provider="cpu", threads=1, low_vram=True, notify=lambda message: None
    )
    given = {**CALL, "negative_prompt": "fog", "output_type": "np"}
    usual = load(sdrt_folder("xl"))("a cat", **given).images
    # One row at a time adds up in another order.
    np.testing.assert_allclose(little("a cat", **given).images, usual, atol=1e-4)
    assert {graph.name for graph in little.graphs} <= {"unet", "vae_decoder"}


XL_ONLY: Mapping[str, Any] = {
    **dict.fromkeys(("prompt_2", "negative_prompt_2"), "a dog"),
    **dict.fromkeys(("original_size", "target_size", "negative_original_size"), (64, 64)),
    **dict.fromkeys(("negative_target_size", "crops_coords_top_left"), (64, 64)),
    "negative_crops_coords_top_left": (0, 0),
    **dict.fromkeys(("aesthetic_score", "negative_aesthetic_score"), 5.0),
    **dict.fromkeys(("pooled_prompt_embeds", "negative_pooled_prompt_embeds"), np.zeros((1, 8), np.float32)),
}


@pytest.mark.parametrize("name", XL_ONLY)
def test_other_families_refuse_them_by_name(sdrt_folder: Folders, name: str) -> None:
    with pytest.raises(RequestError, match=f"^{name} has no effect: .*; leave {name} out$") as error:
        load(sdrt_folder("sd1"))("a cat", **CALL, **{name: XL_ONLY[name]})
    assert error.value.argument == name


@pytest.mark.parametrize(
    ("variant", "given", "message"),
    [
        ("xl", {"aesthetic_score": 5}, "aesthetic_score has no effect: this model takes no aesthetic score"),
        ("xl-refiner", {"target_size": (8, 8)}, "target_size has no effect: this model takes an aesthetic"),
        ("xl-refiner", {"prompt_2": "a"}, "prompt_2 has no effect: .* has one text encoder"),
        ("xl", {"negative_prompt_2": "a"}, "negative_prompt_2 has no effect without negative_prompt"),
        (
            "xl",
            {"negative_original_size": (8, 8)},
            "has no effect without negative_target_size; give it, or leave out negative_original_size",
        ),
        ("xl", {"negative_target_size": (8, 8)}, "has no effect without negative_original_size; give it"),
        (
            "xl",
            {"negative_crops_coords_top_left": (8, 8)},
            "has no effect without negative_original_size and negative_target_size; give both",
        ),
        (
            "xl",
            {"negative_crops_coords_top_left": (8, 8), "image": given_image(64, 64), "strength": 0.9},
            "negative_crops_coords_top_left has no effect with an image",
        ),
        ("xl", {"original_size": (8, 8, 8)}, r"original_size is \(8, 8, 8\): expected \(height, width\)"),
        ("xl", {"original_size": "1024"}, "expected .* or a text such as 1024x1024"),
        ("xl", {"crops_coords_top_left": (-1, 0)}, r"expected \(top, left\) in pixels from 0 to"),
        ("xl", {"prompt_2": ["a", "b"]}, "prompt_2 has 2 strings for 1 prompts"),
        ("xl", {"clip_skip": 3}, "clip_skip is 3: expected 0 to 2 for text_encoder"),
        (
            "xl-pix2pix",
            {"image": given_image(64, 64), "negative_target_size": (8, 8)},
            "made for instructions",
        ),
        ("xl-inpaint", {"image": given_image(64, 64)}, "made for inpainting; give mask_image"),
    ],
    ids=words,
)
def test_what_a_model_refuses(
    sdrt_folder: Folders, variant: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        load(sdrt_folder(variant))("a cat", **CALL, **given)


def test_embeddings_need_pooled_ones(sdrt_folder: Folders) -> None:
    embeds = np.zeros((1, 77, 64), np.float32)
    with pytest.raises(RequestError, match="prompt_embeds is given without pooled_prompt_embeds"):
        load(sdrt_folder("xl"))(prompt_embeds=embeds, **CALL)
    with pytest.raises(RequestError, match=r"pooled_prompt_embeds has shape \(1, 8\): expected \(1, 36\)"):
        load(sdrt_folder("xl"))(
            prompt_embeds=embeds, pooled_prompt_embeds=np.zeros((1, 8), np.float32), **CALL
        )
