"""The provider itself, where onnxruntime-openvino is installed: graphs go over whole, images are the CPU's.

Of a model exported with --target portable, which SDRT_TEST_PORTABLE names, or that is made here where torch is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ProviderError, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.model_folder.folder import ModelFolder
from sdrt.onnx.engine import available_providers, tells_placement
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component

pytestmark = pytest.mark.skipif(
    "openvino" not in available_providers(), reason="onnxruntime-openvino is not installed"
)

GRAPHS = ["text_encoder/model.onnx", "unet/model.onnx"]
GRAPHS += [f"vae_{half}/{graph}.onnx" for half in ("encoder", "decoder") for graph in ("model", "stages")]


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if named := os.environ.get("SDRT_TEST_PORTABLE"):
        return Path(named)
    if find_spec("torch") is None or find_spec("diffusers") is None:
        pytest.skip("SDRT_TEST_PORTABLE names no model, and none can be exported without torch")
    made = tmp_path_factory.mktemp("portable") / "tiny"
    command = [sys.executable, "-m", "sdrt", "export", "--architecture", "tiny", "--random-weights", "0"]
    subprocess.run([*command, "--target", "portable", "-o", str(made)], check=True, capture_output=True)
    return made


def open_on(model: Path, provider: str, **options: Any) -> StableDiffusionPipeline:
    # Verified once, and told of by each new cache.
    return StableDiffusionPipeline.from_pretrained(
        model, provider=provider, threads=1, provider_options=options, verify=False, notify=pytest.fail
    )


def made_image(pipeline: StableDiffusionPipeline, **options: Any) -> np.ndarray:
    found: np.ndarray = pipeline(
        "a red circle, (a blue:1.3) square", num_inference_steps=4, seed=0, output_type="np", **options
    ).images
    return found


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_goes_over_whole(portable: Path, graph: str) -> None:
    config = SessionConfig(provider="openvino", threads=1)
    component = Component(graph, portable / graph, config, Notices(pytest.fail))
    if tells_placement():
        (only,) = component._session.get_provider_graph_assignment_info()
        assert only.ep_name == "OpenVINOExecutionProvider"


@pytest.mark.parametrize("size", [{}, {"height": 48, "width": 80, "num_images_per_prompt": 2}])
def test_the_image_is_the_cpu_s(portable: Path, size: dict[str, int]) -> None:
    there, here = (open_on(portable, provider) for provider in ("openvino", "cpu"))
    # Measured 2.4e-6: sums in another order.
    np.testing.assert_allclose(made_image(there, **size), made_image(here, **size), atol=1e-5)


def test_bf16_is_another_image_and_only_when_asked_for(portable: Path) -> None:
    if not tells_placement():
        with pytest.raises(ProviderError, match="precision needs onnxruntime-openvino"):
            open_on(portable, "openvino", precision="bf16")
        return
    usual, bf16 = (
        made_image(open_on(portable, "openvino", **options)) for options in ({}, {"precision": "bf16"})
    )
    np.testing.assert_array_equal(usual, made_image(open_on(portable, "openvino", precision="f32")))
    if np.array_equal(usual, bf16):
        pytest.skip("this CPU has no bf16")
    # Measured 0.02: what 8 bits of a random network make of an image.
    assert np.abs(usual - bf16).mean() < 0.05


def test_a_graph_for_another_target_is_an_error(tiny_model: Path) -> None:
    config = SessionConfig(provider="openvino", threads=1)
    for name in ("text_encoder", "unet", "vae_decoder"):
        with pytest.raises(ProviderError, match=f"{name}.*--target portable"):
            Component(name, ModelFolder.open(tiny_model).component(name), config, Notices(pytest.fail))


def test_what_landed_elsewhere_is_counted(tiny_model: Path) -> None:
    decoder = ModelFolder.open(tiny_model).component("vae_decoder")
    words = (
        r"1 MultiHeadAttention on other providers"
        if tells_placement()
        else "would run on the CPU, whole or in part"
    )
    with pytest.raises(ProviderError, match=words):
        Component("vae_decoder", decoder, SessionConfig(provider="openvino"), Notices(pytest.fail))
    messages: list[str] = []
    allowed = SessionConfig(provider="openvino", allow_fallback=True)
    Component("vae_decoder", decoder, allowed, Notices(messages.append))
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"BOGUS": "1"}, "Unsupported property BOGUS"),
        ({"NUM_STREAMS": "x"}, "Could not read number of streams"),
    ],
)
def test_a_property_that_openvino_does_not_have(portable: Path, config: dict[str, str], words: str) -> None:
    if not tells_placement():
        words = "load_config needs onnxruntime-openvino"
    with pytest.raises(ProviderError, match=words):
        open_on(portable, "openvino", load_config={"CPU": config}).load()


def test_a_device_that_is_not_there(portable: Path) -> None:
    from sdrt.onnx.engine import openvino_devices

    if "NPU" in openvino_devices():
        pytest.skip("this machine has an NPU")
    with pytest.raises(ProviderError, match="may have refused device_type=NPU"):
        open_on(portable, "openvino", device_type="NPU").load()


def test_compiled_blobs_are_kept_where_told(portable: Path, tmp_path: Path) -> None:
    expected = made_image(open_on(portable, "openvino"))
    for _ in range(2):
        np.testing.assert_array_equal(
            made_image(open_on(portable, "openvino", cache_dir=tmp_path / "blobs")), expected
        )
    assert len(list((tmp_path / "blobs").glob("*.blob"))) == 3
