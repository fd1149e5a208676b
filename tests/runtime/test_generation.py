"""Generation as a user sees it, on the tiny model; tests/parity compares the images with diffusers'."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import ComponentError, RequestError, SdrtWarning, StableDiffusionPipeline, UnsupportedModelError
from sdrt.onnx.buffers import Bound
from sdrt.vae.autoencoder import VaeDecoder
from tests.runtime.damage import poison
from tests.runtime.fast_calls import FAST, images


def test_an_image(pipeline: StableDiffusionPipeline) -> None:
    out = pipeline("a cat", num_inference_steps=2, seed=0, height=64, width=128)
    assert isinstance(out.images[0], Image.Image)
    assert (out.images[0].size, out.images[0].mode) == ((128, 64), "RGB")
    assert out.seeds == [0]
    assert (out.request.height, out.request.prompt) == (64, "a cat")
    assert set(out.timings) == {"text_encoder", "unet", "vae_decoder"}
    assert len(out.timings["unet"]) == pipeline.scheduler.plan(2).num_evaluations


def test_output_types_show_the_same_image(pipeline: StableDiffusionPipeline) -> None:
    array = images(pipeline)[0]
    assert array.dtype == np.float32
    assert 0 <= array.min() < array.max() <= 1
    pil = pipeline("a cat", num_inference_steps=2, seed=5).images[0]
    np.testing.assert_array_equal(np.asarray(pil), (array * 255).round().astype(np.uint8))
    latents = images(pipeline, output_type="latent")
    assert latents.shape[0] == 1
    assert latents.ndim == 4


def test_same_seed_same_image_other_seed_another(pipeline: StableDiffusionPipeline) -> None:
    np.testing.assert_array_equal(images(pipeline), images(pipeline))
    assert np.abs(images(pipeline) - images(pipeline, seed=6)).max() > 0.1


@pytest.mark.parametrize("scheduler", [None, "euler_a"])
def test_an_image_does_not_depend_on_its_batch(
    pipeline: StableDiffusionPipeline, scheduler: str | None
) -> None:
    together = images(
        pipeline, prompt=["a cat", "a dog"], num_images_per_prompt=2, seed=10, scheduler=scheduler
    )
    for index, prompt in enumerate(["a cat", "a cat", "a dog", "a dog"]):
        alone = images(pipeline, prompt=prompt, seed=10 + index, scheduler=scheduler)[0]
        # Matrix products may be split differently for another batch: rounding, far below one level of 255.
        np.testing.assert_allclose(together[index], alone, atol=1e-4)


def test_guidance_of_one_leaves_the_negative_prompt_out(pipeline: StableDiffusionPipeline) -> None:
    plain = images(pipeline, guidance_scale=1.0)
    np.testing.assert_array_equal(plain, images(pipeline, guidance_scale=1.0, negative_prompt="bad"))
    np.testing.assert_array_equal(plain, images(pipeline, guidance_scale=-3))
    guided = images(pipeline, guidance_scale=7.5)
    assert np.abs(plain - guided).max() > 0.01
    assert np.abs(guided - images(pipeline, negative_prompt="low quality")).max() > 1e-3


def test_latents_in_place_of_a_seed(pipeline: StableDiffusionPipeline) -> None:
    from sdrt.common.rng import Generator

    shape = images(pipeline, output_type="latent").shape
    noise = Generator(5).randn(shape)
    before = noise.copy()
    # Euler draws no noise on the way, so the seed has no other part in the image.
    given = images(pipeline, latents=noise, seed=99, scheduler="euler")
    np.testing.assert_array_equal(given, images(pipeline, scheduler="euler"))
    np.testing.assert_array_equal(noise, before)


def test_embeddings_in_place_of_prompts(pipeline: StableDiffusionPipeline) -> None:
    encode = pipeline._cache.get().text_encoder()
    embeds = {"prompt_embeds": encode(["a cat"]), "negative_prompt_embeds": encode(["bad"])}
    np.testing.assert_array_equal(images(pipeline, **embeds), images(pipeline, negative_prompt="bad"))
    with pytest.raises(RequestError, match="differ in shape"):
        images(pipeline, negative_prompt_embeds=encode(["bad"])[:, :5])


def test_a_folder_without_text_encoder_takes_embeddings(
    pipeline: StableDiffusionPipeline, model_copy: Path
) -> None:
    (model_copy / "text_encoder" / "model.onnx").unlink()
    index = model_copy / "model_index.json"
    index.write_text(index.read_text(encoding="utf-8").replace('"CLIPTextModel"', "null"), encoding="utf-8")
    bare = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1)
    embeds = pipeline._cache.get().text_encoder()(["a cat"])
    expected = images(pipeline, guidance_scale=1)
    np.testing.assert_array_equal(images(bare, prompt_embeds=embeds, guidance_scale=1), expected)
    with pytest.raises(RequestError, match="no text encoder"):
        bare("a cat")


@pytest.mark.parametrize("scheduler", [None, "euler", "flow_euler"])
def test_a_scheduler_that_the_family_is_not_trained_for_is_refused(
    model_copy: Path, scheduler: str | None
) -> None:
    """Whether the model's own is used or one is named: the model's config says flow matching."""
    config = model_copy / "scheduler" / "scheduler_config.json"
    config.write_text('{"_class_name": "FlowMatchEulerDiscreteScheduler"}')
    pipeline = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1, verify=False)
    with pytest.raises(UnsupportedModelError, match="Stable Diffusion 1 or 2"):
        images(pipeline, scheduler=scheduler)


@pytest.mark.filterwarnings("default")
def test_a_dropped_end_of_a_prompt_is_said_every_time(
    tiny_model: Path, recwarn: pytest.WarningsRecorder
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, verify=False)
    for _ in range(2):
        pipeline("castle " * 100, **FAST, prompt_syntax="plain")
    warned = [warning for warning in recwarn if warning.category is SdrtWarning]
    assert len(warned) == 2
    assert "the end is ignored" in str(warned[0].message)
    assert warned[0].filename == __file__


def test_scheduler_of_a_call_and_of_the_pipeline(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, verify=False)

    def draw(**options: Any) -> np.ndarray:
        return images(pipeline, num_inference_steps=4, **options)

    default, euler = draw(), draw(scheduler="euler")
    assert np.abs(default - euler).max() > 1e-3
    karras = draw(scheduler="euler", spacing="karras")
    assert np.abs(karras - euler).max() > 1e-3
    pipeline.scheduler = "euler"  # type: ignore[assignment]
    assert pipeline.scheduler.name == "euler"
    np.testing.assert_array_equal(draw(), euler)
    np.testing.assert_array_equal(draw(spacing="karras"), karras)
    with pytest.raises(RequestError, match="nonsense"):
        images(pipeline, scheduler="nonsense")


@pytest.mark.parametrize(
    ("component", "parameter", "value", "words"),
    [
        (
            "text_encoder",
            "final_layer_norm.bias",
            math.nan,
            "text_encoder: output 'last_hidden_state' is not finite",
        ),
        ("unet", "conv_out.bias", math.inf, "unet: output 'out_sample' is not finite"),
        ("vae_decoder", "decoder.conv_out.bias", math.nan, "vae_decoder: output 'sample' is not finite"),
        (
            "vae_decoder",
            "decoder.conv_out.bias",
            1e6,
            "vae_decoder: the image has a single colour though its latents vary",
        ),
    ],
)
def test_the_component_that_breaks_an_image_is_named(
    model_copy: Path, component: str, parameter: str, value: float, words: str
) -> None:
    poison(model_copy / component / "model.onnx", parameter, value)
    broken = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1)
    with pytest.raises(ComponentError, match=words):
        broken("a cat", num_inference_steps=1)


def test_latents_of_one_value_are_not_the_decoder_s_fault(model_copy: Path) -> None:
    poison(model_copy / "vae_decoder" / "model.onnx", "decoder.conv_out.bias", 1e6)
    broken = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1)
    shape = broken("a cat", num_inference_steps=1, output_type="latent").images.shape[1:]
    decode: VaeDecoder = broken._cache.get().vae_decoder
    with pytest.raises(ComponentError, match="unet: the latents are the same everywhere"):
        decode(np.zeros(shape, np.float32))


def test_arguments_that_diffusers_orders_otherwise_need_their_names(
    pipeline: StableDiffusionPipeline,
) -> None:
    with pytest.raises(TypeError, match="takes only prompt, height, width, num_inference_steps by position"):
        pipeline("a cat", 64, 64, 2, 7.5)  # type: ignore[misc]


def test_embeddings_are_uploaded_once_and_no_step_makes_arrays_for_the_u_net(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[tuple[str, int]] = []
    real = Bound.set

    def spy(run: Bound, name: str, array: np.ndarray) -> None:
        handed.append((name, array.ctypes.data))
        real(run, name, array)

    monkeypatch.setattr(Bound, "set", spy)
    images(pipeline, num_inference_steps=5, scheduler="euler", output_type="latent")
    names = [name for name, _ in handed]
    assert names.count("encoder_hidden_states") == 1
    assert (names.count("sample"), names.count("timestep")) == (5, 5)
    assert len({address for name, address in handed if name in ("sample", "timestep")}) == 2


def test_a_negative_prompt_that_is_cut_is_called_so(tiny_model: Path) -> None:
    said: list[str] = []
    StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, notify=said.append)(
        "a cat", negative_prompt="word " * 200, num_inference_steps=1, prompt_syntax="plain"
    )
    assert any(line.startswith("the negative prompt has more than 75 tokens") for line in said), said
