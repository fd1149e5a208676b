"""How prompts condition a run of the tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError, SdrtWarning, StableDiffusionPipeline
from sdrt.request.fitting import fit
from sdrt.run.conditioning import Conditioning

Array = np.ndarray[Any, np.dtype[np.float32]]
STEPS = 4


@pytest.fixture(scope="module")
def telling(tiny_model: Path) -> Iterator[StableDiffusionPipeline]:
    """The tiny model, which warns."""
    with StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, verify=False) as made:
        yield made


def latents(pipeline: StableDiffusionPipeline, prompt: str | list[str], **options: Any) -> Array:
    settings = {"num_inference_steps": STEPS, "seed": 3, "output_type": "latent", "scheduler": "euler"}
    made = pipeline(prompt, **(settings | options)).images
    assert isinstance(made, np.ndarray)
    return made


def after_each_step(pipeline: StableDiffusionPipeline, prompt: str, **options: Any) -> list[Array]:
    request = Request(prompt=prompt, num_inference_steps=STEPS, seed=3, output_type="latent", **options)
    events = list(pipeline.stream(request, scheduler="euler"))
    return [event.latents for event in events[:-1]]  # type: ignore[union-attr]


def embeddings(pipeline: StableDiffusionPipeline, prompt: str, **options: Any) -> Array:
    seen: list[Array] = []

    def keep(_pipeline: Any, _index: int, _timestep: float, tensors: dict[str, Array]) -> None:
        seen.append(tensors["prompt_embeds"])

    latents(
        pipeline,
        prompt,
        guidance_scale=1.0,
        callback_on_step_end=keep,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
        **options,
    )
    return seen[0][0]


def test_a_prompt_without_grammar_is_encoded_as_in_diffusers(pipeline: StableDiffusionPipeline) -> None:
    plain = embeddings(pipeline, "a cat, sitting", prompt_syntax="plain")
    np.testing.assert_array_equal(embeddings(pipeline, "a cat, sitting"), plain)
    np.testing.assert_array_equal(embeddings(pipeline, "a (cat:1.0), sitting"), plain)


def test_weights_multiply_and_the_mean_is_restored(pipeline: StableDiffusionPipeline) -> None:
    plain, weighed = embeddings(pipeline, "a cat"), embeddings(pipeline, "a (cat:1.5)")
    ratio = weighed / plain
    spread = ratio.std(axis=1) / np.abs(ratio.mean(axis=1))
    assert spread.max() < 1e-4
    ratio = ratio.mean(axis=1)
    encoder = pipeline._cache.get().text_encoder().tokenizer
    first, cat = len(list(encoder.groups("a"))), len(list(encoder.groups("cat")))
    inside = slice(1 + first, 1 + first + cat)
    np.testing.assert_allclose(ratio[inside] / ratio[0], 1.5, rtol=1e-4)
    np.testing.assert_allclose(np.delete(ratio, inside) / ratio[0], 1.0, rtol=1e-4)
    assert weighed.mean() == pytest.approx(plain.mean(), rel=1e-4)


def test_long_prompts_are_encoded_in_chunks(pipeline: StableDiffusionPipeline) -> None:
    tokenizer = pipeline._cache.get().text_encoder().tokenizer
    one = len(list(tokenizer.groups("cat")))
    fits = tokenizer.room // one
    long = embeddings(pipeline, "cat " * (fits + 3))
    np.testing.assert_array_equal(long[: tokenizer.length], embeddings(pipeline, "cat " * fits))
    assert len(long) == 2 * tokenizer.length
    broken = embeddings(pipeline, "cat BREAK dog")
    np.testing.assert_array_equal(broken[: tokenizer.length], embeddings(pipeline, "cat"))
    np.testing.assert_array_equal(broken[tokenizer.length :], embeddings(pipeline, "dog"))


def test_negative_prompts_are_padded_to_the_prompts_length(pipeline: StableDiffusionPipeline) -> None:
    spelled_out = latents(pipeline, "a cat BREAK a dog", negative_prompt="blurry BREAK")
    np.testing.assert_array_equal(
        latents(pipeline, "a cat BREAK a dog", negative_prompt="blurry"), spelled_out
    )


def test_editing_changes_the_prompt_between_two_steps(pipeline: StableDiffusionPipeline) -> None:
    cat, edited = after_each_step(pipeline, "a cat"), after_each_step(pipeline, "a [cat:dog:0.5]")
    same = [np.array_equal(one, other) for one, other in zip(cat, edited, strict=True)]
    assert same == [True, True, False, False]


def test_both_evaluations_of_a_step_use_the_same_prompt(pipeline: StableDiffusionPipeline) -> None:
    def made(prompt: str) -> list[Array]:
        request = Request(prompt=prompt, num_inference_steps=3, seed=3, output_type="latent")
        return [event.latents for event in list(pipeline.stream(request, scheduler="heun"))[:-1]]  # type: ignore[union-attr]

    same = [
        np.array_equal(one, other) for one, other in zip(made("a cat"), made("a [cat:dog:2]"), strict=True)
    ]
    assert same == [True, True, True, True, False]


def test_alternation(pipeline: StableDiffusionPipeline) -> None:
    cat, both = after_each_step(pipeline, "cat"), after_each_step(pipeline, "[cat|dog]")
    assert np.array_equal(cat[0], both[0])
    assert not np.array_equal(cat[1], both[1])
    np.testing.assert_array_equal(latents(pipeline, "[cat|cat]"), latents(pipeline, "cat"))


def test_and_adds_up_the_differences_from_the_unconditional_output(pipeline: StableDiffusionPipeline) -> None:
    cat = latents(pipeline, "cat")
    np.testing.assert_allclose(latents(pipeline, "cat AND dog:0"), cat, atol=2e-5)
    np.testing.assert_allclose(latents(pipeline, "cat:0.5 AND cat:0.5"), cat, atol=2e-5)
    np.testing.assert_allclose(
        latents(pipeline, "cat:2 AND dog:0", guidance_scale=3.0),
        latents(pipeline, "cat", guidance_scale=6.0),
        atol=2e-5,
    )
    assert np.abs(latents(pipeline, "cat AND dog") - cat).max() > 1e-3


def test_images_of_a_batch_have_their_own_parts(pipeline: StableDiffusionPipeline) -> None:
    together = latents(pipeline, ["cat AND dog", "a bird"], num_images_per_prompt=2)
    np.testing.assert_allclose(together[1], latents(pipeline, "cat AND dog", seed=4)[0], atol=2e-5)
    np.testing.assert_allclose(together[2], latents(pipeline, "a bird", seed=5)[0], atol=2e-5)


def test_given_embeddings_set_the_length(pipeline: StableDiffusionPipeline) -> None:
    long = embeddings(pipeline, "cat BREAK dog")[np.newaxis]
    settings: dict[str, Any] = {"num_inference_steps": 2, "seed": 3, "output_type": "latent"}
    given = pipeline(prompt_embeds=long, negative_prompt="blurry", **settings).images
    np.testing.assert_array_equal(
        given, pipeline("cat BREAK dog", negative_prompt="blurry", **settings).images
    )
    with pytest.raises(RequestError, match="differ in shape"):
        pipeline(prompt_embeds=long[:, :5], **settings)


def test_weights_out_of_bounds_and_unknown_syntaxes_are_refused(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="multiply to more than 1000"):
        latents(pipeline, "(cat:99999)")
    with pytest.raises(RequestError, match="prompt_syntax is 'none': expected one of a1111, compel, plain"):
        latents(pipeline, "cat", prompt_syntax="none")


def test_padding_uses_the_clip_skip_of_its_prompt(pipeline: StableDiffusionPipeline) -> None:
    """Padding uses the clip_skip of its own prompt. As in diffusers, the negative prompt has none."""
    long = embeddings_of_both(pipeline, "a cat", negative_prompt="fog " * 90, clip_skip=1)
    empty = embeddings(pipeline, "", clip_skip=1)
    np.testing.assert_allclose(long[1, -len(empty) :], empty, atol=1e-6)
    assert np.abs(embeddings(pipeline, "") - empty).max() > 0.1


def embeddings_of_both(pipeline: StableDiffusionPipeline, prompt: str, **options: Any) -> Array:
    """Return the embeddings [2, length, width] of the negative prompt and the prompt."""
    request = fit(Request(prompt=prompt, num_inference_steps=1, seed=3, **options), pipeline._capabilities)
    conditioning = Conditioning.of(request, pipeline.model.family, pipeline._cache.get().text_encoder)
    return conditioning.at(0)["encoder_hidden_states"]


def test_a_break_at_the_end_adds_no_chunk(pipeline: StableDiffusionPipeline) -> None:
    def chunks(prompt: str) -> int:
        length = pipeline._cache.get().text_encoder().tokenizer.length
        return len(embeddings(pipeline, prompt)) // length

    assert [chunks(prompt) for prompt in ("a BREAK", "a BREAK ", "BREAK", "a BREAK ()")] == [1, 1, 1, 1]
    assert [chunks(prompt) for prompt in ("BREAK a", "a BREAK BREAK", "a BREAK b BREAK")] == [2, 2, 2]
    np.testing.assert_array_equal(latents(pipeline, "a cat BREAK"), latents(pipeline, "a cat"))


@pytest.mark.parametrize(
    ("prompt", "same", "message"),
    [
        ("a cat <lora:detail:0.8>", "a cat ", "'<lora:detail:0.8>' is left out of the prompt"),
        ("a cat embedding:fog", "a cat ", "'embedding:fog' is left out of the prompt"),
    ],
)
@pytest.mark.parametrize("syntax", ["a1111", "compel"])
def test_tags_are_no_words(
    telling: StableDiffusionPipeline, prompt: str, same: str, message: str, syntax: str
) -> None:
    with pytest.warns(SdrtWarning, match=message) as warned:
        made = latents(telling, prompt, negative_prompt=prompt, prompt_syntax=syntax)
    assert len(warned) == 1
    expected = latents(telling, same, negative_prompt=same, prompt_syntax=syntax)
    np.testing.assert_array_equal(made, expected)


def test_tags_stay_in_the_metadata(telling: StableDiffusionPipeline) -> None:
    with pytest.warns(SdrtWarning):
        output = telling("a cat <lora:detail:0.8>", num_inference_steps=1, seed=3)
    assert output.metadata(0).prompt == "a cat <lora:detail:0.8>"


def test_plain_prompts_keep_tags_as_words(telling: StableDiffusionPipeline) -> None:
    with pytest.warns(SdrtWarning, match="is read as words"):
        made = latents(telling, "a cat <lora:detail:0.8>", prompt_syntax="plain")
    assert not np.array_equal(made, latents(telling, "a cat ", prompt_syntax="plain"))


def test_a_number_after_the_last_colon_multiplies_guidance(telling: StableDiffusionPipeline) -> None:
    with pytest.warns(SdrtWarning, match="multiplies its guidance scale by 2") as warned:
        made = latents(telling, "a cat, big:2", guidance_scale=3.0)
    assert len(warned) == 1
    np.testing.assert_allclose(made, latents(telling, "a cat, big", guidance_scale=6.0), atol=2e-5)
    with pytest.raises(RequestError, match="makes a weight of '2024': expected -1000 to 1000, or a comma"):
        latents(telling, "a poster, 1999:2024")


def test_comments_are_left_out_on_request(pipeline: StableDiffusionPipeline) -> None:
    text = "a cat # not a dog\n# nor a bird\nin fog"
    made = latents(pipeline, [text], negative_prompt="red # blue", prompt_comments=True)
    np.testing.assert_array_equal(made, latents(pipeline, "a cat in fog", negative_prompt="red"))
    assert not np.array_equal(made, latents(pipeline, text, negative_prompt="red # blue"))


@pytest.mark.parametrize(
    ("prompt", "small", "large"),
    [
        ("[cat:dog:0.5]", "[cat:dog:0.5]", "dog"),
        ("[cat:dog:1.0]", "cat", "dog"),
        ("[cat:dog:1.5]", "cat", "[cat:dog:0.5]"),
        ("[cat:dog:6]", "cat", "[cat:dog:2]"),
    ],
)
def test_editing_goes_on_in_the_second_pass(
    pipeline: StableDiffusionPipeline, prompt: str, small: str, large: str
) -> None:
    """The first pass shows its own half of the editing, and the second pass the other."""
    hires: dict[str, Any] = {"hires_scale": 2.0, "hires_strength": 1.0, "hires_upscaler": "lanczos"}
    request = Request(
        prompt=prompt, num_inference_steps=STEPS, seed=3, output_type="latent", height=64, width=64, **hires
    )
    seen = [event.latents for event in list(pipeline.stream(request, scheduler="euler"))[:-1]]  # type: ignore[union-attr]
    first = after_each_step(pipeline, small, height=64, width=64)
    assert all(np.array_equal(one, other) for one, other in zip(seen[:STEPS], first, strict=True))
    image = pipeline(small, num_inference_steps=STEPS, seed=3, scheduler="euler", height=64, width=64).images
    second = after_each_step(
        pipeline, large, image=image[0].resize((128, 128), 1), strength=1.0, height=128, width=128
    )
    assert all(np.array_equal(one, other) for one, other in zip(seen[STEPS:], second, strict=True))
