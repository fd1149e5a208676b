"""The preparation of images for CLIP beside transformers' `CLIPImageProcessor`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from sdrt.errors import UnsupportedModelError
from sdrt.images.clip_input import ClipInput


def image(height: int, width: int) -> np.ndarray:
    """Noise over a ramp, so that a filter and a shift by a pixel show."""
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    noise = np.random.default_rng(height * width).integers(-60, 60, (height, width, 3))
    return np.clip(ramp + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "config",
    [
        {},
        # As the checkpoints of Stable Diffusion 1 have it, in the notation of 2022 and in that of today.
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 31, "width": 38}},
        {"size": {"height": 21, "width": 48}, "do_center_crop": False, "resample": 1},
        # Smaller than what is cut out of it.
        {"size": 19, "crop_size": 24, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 1]},
        {"do_resize": False, "do_normalize": False, "crop_size": 33},
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (57, 91), (120, 33), (300, 301)])
def test_an_image_is_prepared_as_transformers_does(config: dict[str, Any], size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    given = image(*size)
    theirs = transformers.CLIPImageProcessor(**config)(Image.fromarray(given), return_tensors="np")
    ours = ClipInput.of(config, "feature_extractor")(given)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs["pixel_values"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type is 'SiglipImageProcessor'"),
        ({"size": {"longest_edge": 224}}, "size is "),
        ({"size": 1 << 30}, "expected pixels from 1 to 4096"),
        ({"crop_size": "224"}, "crop_size is '224'"),
        ({"image_mean": [0.5]}, "image_mean is [0.5]: expected three numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std is [0.5, 0, 0.5]: expected three numbers other than 0"),
        ({"do_resize": "yes"}, "do_resize is 'yes': expected true or false"),
        ({"resample": 9}, "resample is 9"),
        ({"do_pad": True}, "do_pad is True: expected a key that sdrt knows"),
    ],
)
def test_another_preparation_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        ClipInput.of(config, "feature_extractor")
    assert message in str(caught.value)
    assert str(caught.value).startswith("feature_extractor/preprocessor_config.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on memory")
@pytest.mark.parametrize("shape", [(1, 65_000), (65_000, 1)])
def test_an_image_of_extreme_proportions_takes_little_memory(shape: tuple[int, int]) -> None:
    """What the crop keeps is made without the rest, which would have billions of pixels."""
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import numpy as np
from sdrt.images.clip_input import ClipInput
ramp = np.linspace(0, 255, 65_000).astype(np.uint8)
print(*ClipInput()(np.repeat(ramp.reshape({shape}), 3).reshape({(*shape, 3)})).mean((0, 2, 3)))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # The middle of the ramp is grey.
    middle = (127.5 / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / 0.27
    np.testing.assert_allclose([float(one) for one in found.stdout.split()], middle, atol=0.05)
