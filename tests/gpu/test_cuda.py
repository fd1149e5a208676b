"""The tiny model on an NVIDIA GPU: CUDA does all the work, in buffers of its own, and the image is the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ProviderError, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from tests.gpu.on_gpu import ON_GPU, fail

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not ON_GPU, reason="no CUDA device works")]

# Convolutions sum in another order there, and may use TF32.
LEVELS = 2 / 255


@pytest.fixture(scope="module")
def on_cuda(tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_model, provider="cuda", notify=fail).load()


def test_auto_takes_the_gpu(tiny_model: Path) -> None:
    assert StableDiffusionPipeline.from_pretrained(tiny_model, notify=fail).provider == "cuda"


def test_all_heavy_work_is_on_the_gpu(on_cuda: StableDiffusionPipeline) -> None:
    # Had it landed elsewhere, `load` would have failed.
    assert on_cuda.provider == "cuda"
    assert on_cuda._cache.get().denoiser()._session.get_providers()[0] == "CUDAExecutionProvider"


def test_the_image_is_the_cpu_s(on_cuda: StableDiffusionPipeline, pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {"num_inference_steps": 10, "seed": 0, "output_type": "np"}
    first, again = (on_cuda("a red circle", **options).images for _ in range(2))
    np.testing.assert_allclose(first, pipeline("a red circle", **options).images, atol=LEVELS)
    np.testing.assert_allclose(first, again, atol=LEVELS)


def test_moving_between_providers(tiny_model: Path) -> None:
    options: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np"}
    moved = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", notify=fail)
    before = moved("a cat", **options).images
    np.testing.assert_allclose(moved.to("cuda")("a cat", **options).images, before, atol=LEVELS)
    np.testing.assert_array_equal(moved.to("cpu")("a cat", **options).images, before)


def test_inputs_live_on_the_device_and_are_reused(tiny_model: Path) -> None:
    config = SessionConfig(provider="cuda")
    decoder = Component("vae_decoder", tiny_model / "vae_decoder/model.onnx", config, Notices(fail))
    (spec,) = decoder.inputs.values()
    shape = tuple(size if isinstance(size, int) else 8 for size in spec.shape)
    random = np.random.default_rng(0)
    first, second = (random.standard_normal(shape, dtype=np.float32) for _ in range(2))
    addresses, results = set(), []
    for latents in (first, second, first):
        with decoder.bound({spec.name: shape}, ("sample",)) as run:
            run.set(spec.name, latents)
            results.append(run()["sample"].copy())
            value = run._device[spec.name]
            assert value.device_name() == "cuda"
            addresses.add(value.data_ptr())
    assert len(addresses) == 1
    np.testing.assert_allclose(results[0], results[2], atol=1e-4)
    assert np.abs(results[0] - results[1]).max() > 0.01


def test_a_device_that_is_not_there_is_an_error(tiny_model: Path) -> None:
    with pytest.raises(ProviderError, match="cuda"):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider="cuda:99", notify=fail).load()
