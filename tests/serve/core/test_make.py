"""What workers make, in this process."""

from __future__ import annotations

import pytest

from sdrt import StableDiffusionPipeline
from sdrt.images.metadata import read_metadata
from sdrt.serve.make import make
from sdrt.serve.task import FileFormat, ImageTask


@pytest.mark.parametrize(("suffix", "has_text"), [(".jpg", False), (".png", True)])
def test_a_text_that_a_format_cannot_hold_is_told(suffix: str, has_text: bool) -> None:
    settings = {"prompt": "circle " * 2500, "num_inference_steps": 1, "guidance_scale": 1.0, "seed": 0}
    task = ImageTask(model="shapes", settings=settings, file_format=FileFormat(suffix=suffix))
    with StableDiffusionPipeline.from_pretrained("shapes") as pipeline:
        (made,) = make(pipeline, [task])
    assert bool(read_metadata(made.images[0].data).text) is has_text
    assert any("too long for JPEG" in text for text in made.notices) is not has_text
