"""T2I-Adapters against diffusers' pipelines, on tiny random weights: every kind, several, beside a ControlNet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import StableDiffusionPipeline
from tests.made_once import MadeOnce
from tests.parity.t2i_adapters import KINDS, write_adapter
from tests.parity.test_controlnet import LATENTS, LEVEL, SIZE, STEPS, control_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The decode_latents method is deprecated:FutureWarning"),
]

Adapter = Callable[..., Path]
CLASSES = {"sd1": "StableDiffusionAdapterPipeline", "sd2": "StableDiffusionAdapterPipeline"}


@pytest.fixture(scope="session")
def adapter(made_once: MadeOnce) -> Adapter:
    """A T2I-Adapter of a kind. The numbers give different ones."""
    return lambda kind, number=0: made_once(
        f"t2i-adapter/{kind}-{number}", lambda folder: write_adapter(folder, kind, number)
    )


def oracle(theirs: Any, name: str, *adapters: Path) -> Any:
    nets = [diffusers.T2IAdapter.from_pretrained(one) for one in adapters]
    parts = dict(theirs.components)
    if name == "xl":
        parts["force_zeros_for_empty_prompt"] = theirs.config["force_zeros_for_empty_prompt"]
    else:
        parts |= {"feature_extractor": None, "requires_safety_checker": False}
        parts.pop("image_encoder", None)
    net = diffusers.MultiAdapter(nets) if len(nets) > 1 else nets[0]
    made = getattr(diffusers, CLASSES.get(name, "StableDiffusionXLAdapterPipeline"))(**parts, adapter=net)
    made.set_progress_bar_config(disable=True)
    return made


def compared(
    source: Path, theirs: Any, adapters: list[Path], images: Any, ours: dict[str, Any], **options: Any
) -> None:
    """Compare images and latents. `ours` are sdrt's names for diffusers' `options`."""
    call = {"prompt": "a lake", "negative_prompt": "fog", **STEPS}
    seeds = [3 + index for index in range(options.get("num_images_per_prompt", 1))]
    with StableDiffusionPipeline.from_pretrained(
        source, provider="cpu", threads=1, controlnet=adapters, notify=lambda _: None
    ) as pipeline:
        for kind, tolerance in (("np", LEVEL), ("latent", LATENTS)):
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            expected = theirs(
                **call,
                **options,
                image=images,
                generator=generators if len(seeds) > 1 else generators[0],
                output_type=kind,
            ).images
            found = pipeline(**call, **ours, control_image=images, seed=3, output_type=kind).images
            error = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
            scale = 1 if kind == "np" else max(1.0, float(np.abs(np.asarray(expected)).max()))
            assert error <= tolerance * scale, (kind, error)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(
    kind: str,
    checkpoint: Callable[[str], Path],
    adapter: Adapter,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    """The result has the size of the control image, in whole squares of the pixels that the adapter sees."""
    name, net = kind.split("-")[0], adapter(kind)
    image = control_image(0, (90, 70))
    image = image.convert("L") if KINDS[kind].get("in_channels") == 1 else image
    options = {"guidance_scale": 5.0}
    compared(checkpoint(name), oracle(diffusers_pipeline(name), name, net), [net], image, options, **options)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"adapter_conditioning_scale": 0.4}, {"controlnet_conditioning_scale": 0.4}),
        ({"adapter_conditioning_factor": 0.5}, {"control_guidance_end": 0.5}),
        ({"num_images_per_prompt": 2}, {"num_images_per_prompt": 2}),
        ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
    ],
    ids=str,
)
def test_scale_and_share_of_the_steps(
    theirs: dict[str, Any],
    ours: dict[str, Any],
    checkpoint: Callable[[str], Path],
    adapter: Adapter,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    net, given = adapter("xl"), {"guidance_scale": 5.0}
    pipeline = oracle(diffusers_pipeline("xl"), "xl", net)
    compared(checkpoint("xl"), pipeline, [net], control_image(), given | ours, **given | theirs)


def test_several_at_once(
    checkpoint: Callable[[str], Path], adapter: Adapter, diffusers_pipeline: Callable[[str], Any]
) -> None:
    nets, scales = [adapter("sd1", number) for number in (0, 1)], [0.5, 0.8]
    compared(
        checkpoint("sd1"),
        oracle(diffusers_pipeline("sd1"), "sd1", *nets),
        nets,
        [control_image(0), control_image(1)],
        {"controlnet_conditioning_scale": scales},
        adapter_conditioning_scale=scales,
    )


@pytest.mark.parametrize("name", ["sd1", "xl"])
def test_beside_a_controlnet(
    name: str,
    checkpoint: Callable[[str], Path],
    adapter: Adapter,
    diffusers_pipeline: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """diffusers has no pipeline for both, but its U-Net takes both. Its ControlNet pipeline's gets features here."""
    from tests.parity.checkpoints import randomise

    theirs, net = diffusers_pipeline(name), adapter(name)
    unet = theirs.unet
    control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8, 10))
    randomise(control, 50).save_pretrained(tmp_path)
    module = diffusers.T2IAdapter.from_pretrained(net)
    width, height = SIZE[0] - SIZE[0] % 16, SIZE[1]
    seen = np.asarray(control_image(1).resize((width, height), Image.Resampling.LANCZOS), np.float32) / 255
    with torch.no_grad():
        features = module(torch.from_numpy(seen.transpose(2, 0, 1)[None]))

    def forward(*given: Any, **named: Any) -> Any:
        both = [torch.cat([0.7 * one] * 2) for one in features]
        return type(unet).forward(unet, *given, **named, down_intrablock_additional_residuals=both)

    from tests.parity.test_controlnet import oracle as controlled

    pipeline = controlled(theirs, "", tmp_path)
    call: dict[str, Any] = {
        "prompt": "a lake",
        "guidance_scale": 5.0,
        "width": width,
        "height": height,
        **STEPS,
    }
    unet.forward = forward
    try:
        expected = pipeline(
            **call, image=control_image(), generator=torch.Generator("cpu").manual_seed(3), output_type="np"
        ).images
    finally:
        del unet.forward
    with StableDiffusionPipeline.from_pretrained(
        checkpoint(name), provider="cpu", threads=1, controlnet=[net, tmp_path], notify=lambda _: None
    ) as ours:
        images = [control_image(1), control_image()]
        found = ours(
            **call,
            control_image=images,
            controlnet_conditioning_scale=[0.7, 1.0],
            seed=3,
            output_type="np",
        ).images
    assert float(np.abs(np.asarray(found) - expected).max()) <= LEVEL


def test_odd_sizes_of_sdxl(checkpoint: Callable[[str], Path], adapter: Adapter) -> None:
    """SDXL's adapters see squares of 16 pixels, and the model makes multiples of 8. diffusers refuses such sizes."""
    with StableDiffusionPipeline.from_pretrained(
        checkpoint("xl"), provider="cpu", threads=1, controlnet=[adapter("xl")], notify=lambda _: None
    ) as pipeline:
        call: dict[str, Any] = {"height": 56, "width": 72, "seed": 3, "output_type": "np", **STEPS}
        without = np.asarray(pipeline("a lake", **call).images)
        for tiles in ({}, {"tile_size": 40}):
            found = np.asarray(pipeline("a lake", control_image=control_image(), **call, **tiles).images)
            assert found.shape == (1, 56, 72, 3)
            assert np.abs(found - without).max() > 0.01
