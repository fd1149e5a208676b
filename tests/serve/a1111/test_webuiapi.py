"""webuiapi, A1111's client in the package index, works with the server unmodified."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sdrt.images.metadata import read_metadata
from tests.serve.a1111.conftest import SIDE, STEPS, webui
from tests.serve.core.running import Running, serving, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    import webuiapi

    from sdrt import StableDiffusionPipeline

SIZE = {"width": SIDE, "height": SIDE}
CIRCLE = {"prompt": "a red circle", "seed": 7, **SIZE}
# What A1111 runs for "Euler a" and Automatic.
SAME = {"num_inference_steps": STEPS, "guidance_scale": 7.0, "scheduler": "Euler a Uniform"}


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def is_same(first: Image.Image, second: Image.Image) -> bool:
    return bool((pixels(first) == pixels(second)).all())


@pytest.fixture(scope="module")
def circle(server: Running) -> Image.Image:
    image: Image.Image = webui(server).txt2img(**CIRCLE).image
    return image


@pytest.fixture
def mask() -> Image.Image:
    """White in a square."""
    made = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(made).rectangle((32, 32, 79, 79), fill=255)
    return made


def test_an_image_of_a_text_is_that_of_the_pipeline(
    api: webuiapi.WebUIApi, local: StableDiffusionPipeline
) -> None:
    made = api.txt2img(**CIRCLE, negative_prompt="a square").image
    own = local("a red circle", negative_prompt="a square", seed=7, **SIZE, **SAME).images[0]
    assert is_same(made, own)


def test_info_says_what_clients_read(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(**CIRCLE, negative_prompt="a square", batch_size=2, n_iter=2, scheduler="Karras")
    info = made.info
    assert len(made.images) == 4
    assert (info["prompt"], info["negative_prompt"]) == ("a red circle", "a square")
    assert info["all_prompts"] == ["a red circle"] * 4
    assert info["all_negative_prompts"] == ["a square"] * 4
    assert (info["seed"], info["all_seeds"]) == (7, [7, 8, 9, 10])
    assert len(info["all_subseeds"]) == 4
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (SIDE, SIDE, STEPS, 7.0)
    assert (info["sampler_name"], info["batch_size"], info["clip_skip"]) == ("Euler a", 2, 1)
    assert info["extra_generation_params"]["Schedule type"] == "Karras"
    assert (info["sd_model_name"], len(info["sd_model_hash"])) == ("shapes", 10)
    assert info["index_of_first_image"] == 0
    assert len(info["job_timestamp"]) == 14
    assert made.parameters["batch_size"] == 2


def test_infotexts_are_in_the_images_and_sdrt_reads_them(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(**CIRCLE, n_iter=2)
    for index, image in enumerate(made.images):
        text = image.info["parameters"]
        assert text == made.info["infotexts"][index]
        buffer = io.BytesIO()
        image.save(buffer, "PNG", pnginfo=_with_text(text))
        found = read_metadata(buffer.getvalue())
        assert (found.prompt, found.program) == ("a red circle", "sdrt")
        assert found.settings["Seed"] == str(7 + index)
        assert found.settings["Sampler"] == "Euler a"


def _with_text(text: str) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", text)
    return info


def test_each_batch_is_the_image_of_its_own_seed(api: webuiapi.WebUIApi) -> None:
    both = api.txt2img(**CIRCLE, n_iter=2).images
    second = api.txt2img(**{**CIRCLE, "seed": 8}).image
    assert is_same(both[1], second)
    assert not is_same(both[0], both[1])


def test_a_random_seed_makes_the_image_again(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(**{**CIRCLE, "seed": -1})
    assert is_same(api.txt2img(**{**CIRCLE, "seed": made.info["seed"]}).image, made.image)


def test_a_strength_runs_as_many_steps_as_in_a1111(
    api: webuiapi.WebUIApi, local: StableDiffusionPipeline, circle: Image.Image
) -> None:
    made = api.img2img(
        images=[circle], prompt="a blue circle", seed=3, denoising_strength=0.5, steps=10, **SIZE
    )
    # A1111 runs int(0.5 * 10) steps and one more.
    same = SAME | {"num_inference_steps": 10}
    own = local("a blue circle", image=circle, strength=0.6, seed=3, **SIZE, **same).images[0]
    assert is_same(made.image, own)
    assert made.info["denoising_strength"] == 0.5


def test_an_image_is_cropped_or_filled_to_another_shape(api: webuiapi.WebUIApi) -> None:
    image = Image.new("RGB", (192, SIDE), "red")
    image.paste("blue", (0, 0, 32, SIDE))
    image.paste("blue", (160, 0, 192, SIDE))
    # Hardly any noise, so that the result shows the image.
    faint = {"images": [image], "prompt": "", "seed": 1, "denoising_strength": 0.0, "steps": 20, **SIZE}
    cropped = pixels(api.img2img(**faint, resize_mode=1).image)
    stretched = pixels(api.img2img(**faint, resize_mode=0).image)
    filled = pixels(api.img2img(**faint, resize_mode=2).image)
    assert cropped.shape == stretched.shape == filled.shape == (SIDE, SIDE, 3)
    assert cropped[64, 4, 0] > cropped[64, 4, 2]
    assert stretched[64, 4, 0] < stretched[64, 4, 2]
    assert filled[4, 4, 2] > filled[4, 4, 0]


def test_only_the_white_of_a_mask_is_repainted(
    api: webuiapi.WebUIApi, circle: Image.Image, mask: Image.Image
) -> None:
    asked = {
        "images": [circle],
        "mask_image": mask,
        "prompt": "a blue square",
        "seed": 5,
        "mask_blur": 0,
        **SIZE,
    }
    white = np.asarray(mask) > 0
    for inside, options in (
        (white, {}),
        (white, {"inpainting_fill": 1}),
        (white, {"inpaint_full_res": False}),
        (~white, {"inpainting_mask_invert": 1, "inpainting_fill": 1}),
    ):
        made = pixels(api.img2img(**asked, **options).image)
        changed = (made != pixels(circle)).any(axis=2)
        assert changed[inside].mean() > 0.5
        assert not changed[~inside].any()


def test_what_is_opaque_in_a_mask_with_transparency_is_repainted(
    api: webuiapi.WebUIApi, circle: Image.Image, mask: Image.Image
) -> None:
    # Editors send black paint on a transparent layer.
    layer = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    layer.putalpha(mask)
    asked = {"images": [circle], "prompt": "a blue square", "seed": 5, **SIZE}
    assert is_same(api.img2img(**asked, mask_image=layer).image, api.img2img(**asked, mask_image=mask).image)


def test_fill_starts_from_the_colours_around_the_mask(api: webuiapi.WebUIApi) -> None:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    image.paste("black", (48, 48, 80, 80))
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (44, 44, 84, 84))
    faint = {"images": [image], "mask_image": mask, "prompt": "", "seed": 1, "denoising_strength": 0.0}
    asked = {**faint, "steps": 20, "inpaint_full_res": False, **SIZE}
    filled, kept = (
        pixels(api.img2img(**asked, inpainting_fill=fill).image)[64, 64].mean() for fill in (0, 1)
    )
    assert filled > 160 > 96 > kept


def test_a_second_pass_enlarges_the_image(api: webuiapi.WebUIApi) -> None:
    by_scale = api.txt2img(**CIRCLE, enable_hr=True, hr_scale=1.5, denoising_strength=0.6)
    to_size = api.txt2img(**CIRCLE, enable_hr=True, hr_resize_x=192, denoising_strength=0.6)
    assert by_scale.image.size == (192, 192)
    assert is_same(by_scale.image, to_size.image)
    assert (by_scale.info["width"], by_scale.info["denoising_strength"]) == (SIDE, 0.6)
    assert by_scale.info["extra_generation_params"]["Hires upscale"] == "1.5"


def test_clip_skip_and_model_are_overridden(
    api: webuiapi.WebUIApi, local: StableDiffusionPipeline, circle: Image.Image
) -> None:
    made = api.txt2img(**CIRCLE, override_settings={"CLIP_stop_at_last_layers": 2})
    own = local("a red circle", seed=7, clip_skip=1, **SIZE, **SAME).images[0]
    assert is_same(made.image, own)
    assert made.info["clip_skip"] == 2
    other = api.txt2img(**CIRCLE, override_settings={"sd_model_checkpoint": "edges"})
    assert other.info["sd_model_name"] == "edges"
    # The next request is as before.
    after = api.txt2img(**CIRCLE)
    assert (after.info["clip_skip"], after.info["sd_model_name"]) == (1, "shapes")
    assert is_same(after.image, circle)


def test_png_info_reads_an_image(api: webuiapi.WebUIApi, circle: Image.Image) -> None:
    found = api.png_info(circle)
    assert found.info == circle.info["parameters"]
    assert found.parameters["Prompt"] == "a red circle"
    assert (found.parameters["Size-1"], found.parameters["Size-2"]) == (str(SIDE), str(SIDE))
    assert api.png_info(Image.new("RGB", (8, 8))).info == ""


def test_lists_name_what_requests_can_ask_for(api: webuiapi.WebUIApi) -> None:
    assert {"Euler a", "DPM++ 2M", "DDIM", "UniPC"} <= set(api.util_get_sampler_names())
    assert {"automatic", "uniform", "karras", "sgm_uniform"} <= set(api.util_get_scheduler_names())
    assert [one["name"] for one in api.get_upscalers()] == ["None", "Lanczos", "Nearest"]
    assert [one["name"] for one in api.get_latent_upscale_modes()] == ["Latent"]
    assert [one["model_name"] for one in api.get_sd_models()] == ["shapes", "edges"]
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    for nothing in (api.get_hypernetworks, api.get_face_restorers, api.get_prompt_styles, api.get_sd_vae):
        assert nothing() == []
    memory = api.get_memory()["ram"]
    assert 0 < memory["used"] < memory["total"]
    assert api.refresh_checkpoints() is None
    assert api.has_controlnet


@pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M Karras", "DPM++ SDE", "UniPC", "LMS", "PLMS", "LCM"])
def test_samplers_run_with_what_webuiapi_sends_beside_them(api: webuiapi.WebUIApi, sampler: str) -> None:
    # Its eta is 1 for every sampler.
    made = api.txt2img(**CIRCLE, sampler_name=sampler)
    assert made.info["sampler_name"] == sampler.removesuffix(" Karras")


def test_options_choose_the_model_of_this_client(api: webuiapi.WebUIApi) -> None:
    title = api.util_get_current_model()
    assert title in api.util_get_model_names()
    try:
        api.util_set_model("edges")
        assert api.util_get_current_model().startswith("edges [")
        assert api.txt2img(**CIRCLE).info["sd_model_name"] == "edges"
    finally:
        api.util_set_model(title)
    assert api.txt2img(**CIRCLE).info["sd_model_name"] == "shapes"
    assert api.set_options({"tiling_of_all": True})["field"] == "tiling_of_all"


def test_an_image_is_enlarged(api: webuiapi.WebUIApi, circle: Image.Image) -> None:
    made = api.extra_single_image(circle, upscaler_1="Lanczos", upscaling_resize=1.5).image
    assert is_same(made, circle.resize((192, 192), Image.Resampling.LANCZOS))
    assert made.info["parameters"] == circle.info["parameters"]
    assert is_same(api.extra_single_image(circle, upscaler_1="None").image, circle)
    sized = {"resize_mode": 1, "upscaling_resize_w": 256, "upscaling_resize_h": 64}
    both = api.extra_batch_images([circle, circle], upscaler_1="Nearest", **sized).images
    assert [one.size for one in both] == [(256, 64)] * 2
    assert api.extra_single_image(circle, upscaler_1="Nearest", upscaling_crop=False, **sized).image.size == (
        256,
        256,
    )


def test_a_lora_of_the_prompt_is_used(api: webuiapi.WebUIApi) -> None:
    listed = api.get_loras()
    assert [(one["name"], one["path"]) for one in listed] == [("moon", "moon.safetensors")]
    without, zero, whole = (
        api.txt2img(**{**CIRCLE, "prompt": f"a red circle{tag}"})
        for tag in ("", "<lora:moon:0>", "<lora:moon:1>")
    )
    assert is_same(without.image, zero.image)
    assert not is_same(without.image, whole.image)
    assert whole.info["prompt"] == "a red circle<lora:moon:1>"


def test_a_controlnet_sees_the_image_of_its_unit(
    api: webuiapi.WebUIApi, circle: Image.Image, with_edges: Path
) -> None:
    import webuiapi

    from sdrt import StableDiffusionPipeline

    unit = webuiapi.ControlNetUnit(
        image=circle,
        model="edges [12345678]",
        module="canny",
        weight=0.7,
        guidance_end=0.8,
        pixel_perfect=True,
        control_mode=1,
    )
    chosen = {"override_settings": {"sd_model_checkpoint": "edges"}}
    made = api.txt2img(**CIRCLE, **chosen, controlnet_units=[unit]).image
    # webuiapi keeps the units for the next request, unless it sees that the server has ControlNets.
    assert is_same(api.txt2img(**CIRCLE).image, circle)
    with StableDiffusionPipeline.from_pretrained(with_edges, provider="cpu", notify=lambda _: None) as own:
        expected = own(
            "a red circle",
            seed=7,
            control_image=circle,
            control_preprocessor="canny",
            canny_low_threshold=64,
            canny_high_threshold=64,
            controlnet_conditioning_scale=0.7,
            control_guidance_end=0.8,
            control_mode="prompt",
            **SIZE,
            **SAME,
        ).images[0]
    assert is_same(made, expected)


@contextmanager
def running(ask: Callable[[], object]) -> Iterator[list[Any]]:
    """A request in another thread. Its answer is in the list at the end."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    try:
        yield answers
    finally:
        thread.join()


SLOW = {**CIRCLE, "steps": 80}


def test_progress_has_steps_and_previews_until_the_images_are_done(api: webuiapi.WebUIApi) -> None:
    seen: list[dict[str, Any]] = []
    with running(lambda: api.txt2img(**SLOW)) as answers:

        def has_preview() -> bool:
            seen.append(api.get_progress())
            return seen[-1]["current_image"] is not None or bool(answers)

        wait_for(has_preview)
    last = seen[-1]
    assert 0 < last["progress"] < 1
    assert last["eta_relative"] > 0
    assert (last["state"]["job_count"], last["state"]["sampling_steps"]) == (1, 80)
    assert last["state"]["sampling_step"] >= 5
    shares = [one["progress"] for one in seen]
    assert shares == sorted(shares)
    assert len(answers[0].images) == 1
    api.util_wait_for_ready(check_interval=0.05)


def is_running(api: webuiapi.WebUIApi) -> bool:
    return bool(api.get_progress()["state"]["sampling_step"] > 0)


def test_an_interrupted_request_is_answered_with_the_batches_that_are_done(api: webuiapi.WebUIApi) -> None:
    with running(lambda: api.txt2img(**SLOW, n_iter=8)) as answers:
        wait_for(lambda: api.get_progress()["state"]["job_no"] > 0)
        assert api.interrupt() == {}
    done = answers[0]
    assert 1 <= len(done.images) < 8
    assert len(done.info["all_seeds"]) == len(done.images)


def test_a_request_that_is_interrupted_at_once_has_no_images(api: webuiapi.WebUIApi) -> None:
    with running(lambda: api.txt2img(**SLOW)) as answers:
        wait_for(lambda: is_running(api))
        api.interrupt()
    assert answers[0].images == []
    assert (answers[0].info["seed"], answers[0].info["infotexts"]) == (7, [])
    # And the next one is made.
    assert len(api.txt2img(**CIRCLE).images) == 1


def test_a_batch_is_skipped(api: webuiapi.WebUIApi) -> None:
    with running(lambda: api.txt2img(**SLOW, n_iter=2)) as answers:
        wait_for(lambda: is_running(api))
        api.skip()
    assert answers[0].info["all_seeds"] == [8]


KEY, OTHER = "a-key-of-sixteen-characters", "another-of-sixteen-characters"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that needs one of two keys."""
    keys = ("--api-key", KEY, "--api-key", OTHER)
    with serving(tmp_path_factory.mktemp("guarded"), *keys, "--provider", "cpu") as made:
        yield made


def test_a_key_is_the_password_of_set_auth(guarded: Running) -> None:
    api = webui(guarded)
    with pytest.raises(RuntimeError, match="401"):
        api.txt2img(**CIRCLE)
    api.set_auth("anyone", KEY)
    assert api.txt2img(**CIRCLE).image.size == (SIDE, SIDE)
    # This server has no folder of LoRAs.
    with pytest.raises(RuntimeError, match="--lora-dir"):
        api.txt2img(**{**CIRCLE, "prompt": "a red circle<lora:moon:1>"})
    api.set_auth("anyone", f"{KEY}x")
    with pytest.raises(RuntimeError, match="does not know"):
        api.txt2img(**CIRCLE)


def test_a_client_sees_and_stops_its_own_images_alone(guarded: Running) -> None:
    mine, theirs = (webui(guarded, username="u", password=key) for key in (KEY, OTHER))
    theirs.set_options({"CLIP_stop_at_last_layers": 2})
    assert mine.get_options()["CLIP_stop_at_last_layers"] == 1
    with running(lambda: mine.txt2img(**SLOW)) as answers:
        wait_for(lambda: is_running(mine))
        assert theirs.get_progress()["progress"] == 0
        theirs.interrupt()
        theirs.skip()
        assert not mine.get_progress()["state"]["interrupted"]
    assert len(answers[0].images) == 1
