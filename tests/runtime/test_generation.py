"""Generation as a user sees it, on the tiny model; tests/parity compares the images with diffusers'."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import (
    ComponentError,
    GenerationStep,
    Request,
    RequestError,
    SdrtWarning,
    StableDiffusionPipeline,
    StableDiffusionPipelineOutput,
    UnsupportedModelError,
)
from sdrt.onnx.buffers import Bound
from sdrt.onnx.session import Component
from sdrt.vae.autoencoder import VaeDecoder
from tests.runtime.damage import poison

FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 5, "output_type": "np"}


def images(pipeline: StableDiffusionPipeline, **options: Any) -> np.ndarray:
    prompt = {} if "prompt_embeds" in options else {"prompt": "a cat"}
    images = pipeline(**(prompt | FAST | options)).images
    assert isinstance(images, np.ndarray)
    return images


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


def test_callback_sees_every_step(pipeline: StableDiffusionPipeline) -> None:
    seen: list[tuple[int, float]] = []

    def callback(owner: object, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        assert owner is pipeline
        assert set(tensors) == {"latents"}
        seen.append((index, timestep))
        return tensors

    watched = images(pipeline, callback_on_step_end=callback)
    plan = pipeline.scheduler.plan(2)
    assert seen == list(enumerate(plan.timesteps))
    np.testing.assert_array_equal(watched, images(pipeline))


def test_callback_can_change_the_run(pipeline: StableDiffusionPipeline) -> None:
    def zero(owner: object, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": np.zeros_like(tensors["latents"])} if index == 0 else {}

    def swap(owner: object, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": tensors["prompt_embeds"][::-1]}

    plain = images(pipeline)
    assert np.abs(plain - images(pipeline, callback_on_step_end=zero)).max() > 0.01
    names = ["prompt_embeds", "negative_prompt_embeds"]
    swapped = images(pipeline, callback_on_step_end=swap, callback_on_step_end_tensor_inputs=names)
    assert not np.array_equal(plain, swapped)
    np.testing.assert_array_equal(plain, images(pipeline))


def test_callback_mistakes_are_named(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="'noise_pred': expected any of latents"):
        images(pipeline, callback_on_step_end_tensor_inputs=["noise_pred"])
    for returned, words in (
        ({"latents": np.zeros(3)}, r"latents of shape \(3,\)"),
        ({"x": np.zeros(3)}, "returned 'x'"),
        ({"prompt_embeds": np.zeros(3)}, "returned 'prompt_embeds': expected only tensors that"),
        (np.zeros(3), "returned ndarray: expected a dict or None"),
    ):
        with pytest.raises(RequestError, match=words):
            images(pipeline, callback_on_step_end=lambda *_, answer=returned: answer)


def test_a_callback_is_blamed_for_what_it_returns(pipeline: StableDiffusionPipeline) -> None:
    def spoil(_: object, index: int, __: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: tensor * np.float32(np.nan) for name, tensor in tensors.items()}

    for name in ("latents", "prompt_embeds"):
        with pytest.raises(RequestError, match=f"the callback returned {name} with NaN"):
            images(pipeline, callback_on_step_end=spoil, callback_on_step_end_tensor_inputs=[name])


def test_negative_embeddings_in_a_callback(pipeline: StableDiffusionPipeline) -> None:
    names = ["prompt_embeds", "negative_prompt_embeds"]
    seen: list[dict[str, Any]] = []

    def watch(_: object, index: int, __: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors)
        return tensors

    def change(_: object, index: int, __: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"negative_prompt_embeds": np.zeros(3)}

    options = {"callback_on_step_end_tensor_inputs": names}
    images(pipeline, callback_on_step_end=watch, **options)
    both, negative = (seen[0][name] for name in names)
    np.testing.assert_array_equal(both[:1], negative)
    seen.clear()
    images(pipeline, callback_on_step_end=watch, guidance_scale=1.0, **options)
    assert seen[0]["negative_prompt_embeds"] is None
    for guidance_scale in (1.0, 7.5):
        with pytest.raises(RequestError, match="negative_prompt_embeds, which has no effect"):
            images(pipeline, callback_on_step_end=change, guidance_scale=guidance_scale, **options)


def test_a_run_keeps_the_sessions_it_began_with(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, verify=False)
    request = Request(prompt="a cat", **FAST)
    run = pipeline.stream(request)
    next(run)
    pipeline.close()
    *_, result = run
    assert pipeline.graphs == ()
    assert isinstance(result, StableDiffusionPipelineOutput)
    np.testing.assert_array_equal(result.images, images(pipeline))


def test_stream_ends_with_the_result_and_can_be_left(pipeline: StableDiffusionPipeline) -> None:
    *steps, result = pipeline.stream(Request(prompt="a cat", num_inference_steps=3, seed=1, output_type="np"))
    assert isinstance(result, StableDiffusionPipelineOutput)
    assert all(isinstance(step, GenerationStep) for step in steps)
    assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
    assert {step.num_steps for step in steps} == {len(steps)}
    abandoned = pipeline.stream(Request(prompt="a dog", num_inference_steps=3))
    next(abandoned)
    del abandoned
    again = pipeline("a cat", num_inference_steps=3, seed=1, output_type="np").images
    np.testing.assert_array_equal(again, result.images)


def test_ctrl_c_in_a_step_leaves_the_pipeline_usable(pipeline: StableDiffusionPipeline) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images(pipeline, callback_on_step_end=interrupt)
    assert np.isfinite(images(pipeline)).all()


def test_a_plan_is_for_the_pipeline_that_made_it(pipeline: StableDiffusionPipeline, model_copy: Path) -> None:
    other = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1, verify=False)
    plan = other.plan(Request(prompt="a cat", num_inference_steps=2, seed=1))
    with pytest.raises(RequestError, match="planned by another pipeline"):
        pipeline.stream(plan)
    with pytest.raises(RequestError, match="pass scheduler and spacing to plan"):
        other.stream(plan, scheduler="euler")
    assert len(list(other.stream(plan))) == plan.num_evaluations + 1


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


def test_threads_share_a_pipeline(pipeline: StableDiffusionPipeline) -> None:
    expected = {seed: images(pipeline, seed=seed) for seed in range(3)}
    got: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        got[seed] = images(pipeline, seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, made in expected.items():
        np.testing.assert_array_equal(got[seed], made)


def test_threads_make_each_session_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    create = Component.__init__

    def slow(self: Component, name: str, *rest: Any, **options: Any) -> None:
        made.append(name)
        time.sleep(0.05)
        create(self, name, *rest, **options)

    monkeypatch.setattr(Component, "__init__", slow)
    fresh = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, notify=made.append)
    threads = [threading.Thread(target=images, args=(fresh,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [name for name in made if "hashes" not in name] == ["text_encoder", "unet", "vae_decoder"]
    assert sum("checking" in message for message in made) <= 1


@pytest.mark.filterwarnings("default")
def test_a_dropped_end_of_a_prompt_is_said_every_time(
    tiny_model: Path, recwarn: pytest.WarningsRecorder
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, verify=False)
    for _ in range(2):
        images(pipeline, prompt="castle " * 100, prompt_syntax="plain")
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


def test_closing_frees_and_a_later_call_loads_again(tiny_model: Path) -> None:
    with StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", verify=False).load() as pipeline:
        first = images(pipeline)
    np.testing.assert_array_equal(images(pipeline), first)


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
