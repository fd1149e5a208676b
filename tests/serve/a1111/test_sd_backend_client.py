"""sd-backend-client, which editors use for A1111 and ComfyUI alike, works with the server unmodified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.serve.a1111.conftest import SIDE, STEPS
from tests.serve.core.running import Running, serving, wait_for

if TYPE_CHECKING:
    from sd_backend_client import A1111Webservice

SIZE = {"width": SIDE, "height": SIDE}
_PATIENCE = 120


@pytest.fixture
def backend(server: Running) -> Iterator[A1111Webservice]:
    """The client that it chooses for the server by its URL."""
    from sd_backend_client.api.a1111_webservice import A1111Webservice
    from sd_backend_client.api.detect import connect_to_backend

    made = connect_to_backend(server.url)
    assert isinstance(made, A1111Webservice)
    yield made
    made.disconnect()


def params(**options: Any) -> Any:
    from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody

    usual = {"prompt": "a red circle", "seed": 7, "steps": STEPS, **SIZE}
    return DiffusionRequestBody(**{**usual, **options})


def test_it_lists_what_the_server_has(backend: A1111Webservice) -> None:
    assert [one.name for one in backend.list_checkpoints()] == ["shapes", "edges"]
    assert [one.name for one in backend.list_loras()] == ["moon"]
    assert {"euler_ancestral", "dpmpp_2m", "uni_pc"} <= {one.name for one in backend.list_samplers()}
    assert {"karras", "normal", "sgm_uniform"} <= {one.name for one in backend.list_schedulers()}
    assert [one.name for one in backend.list_upscalers()] == ["Lanczos", "Nearest"]
    assert [one.full_model_name for one in backend.list_controlnet_models()] == ["edges"]
    assert (backend.list_vaes(), backend.list_hypernetworks()) == ([], [])
    assert (backend.get_styles(), backend.get_script_info()) == ([], [])
    assert {one.name for one in backend.get_controlnet_preprocessors()} == {"none", "canny"}
    assert "All" in backend.get_controlnet_type_categories()


def test_it_knows_what_the_server_can_do(backend: A1111Webservice) -> None:
    found = backend.get_capabilities()
    assert (found.controlnet, found.scheduler) == (True, True)
    assert not any((found.ultimate_upscale, found.soft_inpainting, found.interrogate))


def test_it_makes_images(backend: A1111Webservice) -> None:
    made = backend.submit_txt2img(params(batch_size=2)).wait(_PATIENCE)
    assert [one.size for one in made.images] == [(SIDE, SIDE)] * 2
    assert made.raw_info.all_seeds == [7, 8]
    assert made.raw_info.sampler_name == "Euler a"
    chosen = backend.submit_txt2img(params(sd_model_name="edges")).wait(_PATIENCE)
    assert chosen.raw_info.sd_model_name == "edges"


def test_it_repaints_an_image(backend: A1111Webservice) -> None:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (32, 32, 96, 96))
    asked = params(
        prompt="a blue square", init_images=[image], mask=mask, mask_blur=0, inpaint_full_res=False
    )
    made = np.asarray(backend.submit_inpaint(asked).wait(_PATIENCE).images[0].convert("RGB"))
    assert (made[np.asarray(mask) == 0] == 255).all()
    assert (made[np.asarray(mask) > 0] != 255).any()


def test_it_enlarges_an_image(backend: A1111Webservice) -> None:
    image = Image.new("RGB", (SIDE, SIDE), "red")
    made = backend.submit_upscale(image, 256, 192).wait(_PATIENCE).images[0]
    assert made.size == (256, 192)


def test_it_cancels(backend: A1111Webservice) -> None:
    from sd_backend_client.errors import GenerationError

    handle = backend.submit_txt2img(params(steps=150))
    wait_for(lambda: backend.progress_check().state.sampling_step > 0)
    assert handle.cancel()
    with pytest.raises(GenerationError, match=r"(?i)cancelled"):
        handle.wait(_PATIENCE)
    # And the next one is made.
    assert backend.submit_txt2img(params()).wait(_PATIENCE).images


def test_it_logs_in_with_a_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    from sd_backend_client.api.detect import connect_to_backend

    key = "a-key-of-sixteen-characters"
    asked: list[tuple[str, str]] = []

    def credentials() -> tuple[str, str]:
        asked.append(("user", key))
        return asked[-1]

    with serving(tmp_path_factory.mktemp("keyed"), "--api-key", key, "--provider", "cpu") as guarded:
        backend = connect_to_backend(guarded.url, credentials_provider=credentials)
        assert [one.name for one in backend.list_checkpoints()] == ["shapes"]
    assert len(asked) == 1
