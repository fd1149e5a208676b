"""Image prompts against diffusers' pipelines, on tiny random weights: tasks, several images and adapters, masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from sdrt import StableDiffusionPipeline  # noqa: E402
from tests.parity.image_prompts import given_image  # noqa: E402
from tests.parity.ip_adapter_calls import (  # noqa: E402
    ADAPTERS,
    LEVEL,
    SIZE,
    Adapter,
    compared,
    mask,
    oracle,
    ours,
    prompt_image,
)

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_an_image_prompt(
    variant: str, kind: str, checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint(variant), [adapter(variant, kind, 0)]
    compared(ours(source, files, encoder), oracle(source, files, encoder), prompt_image(), scale=0.6)


def test_two_images_of_one_adapter(
    checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint("sd1"), [adapter("sd1", "plus", 0)]
    images = [[prompt_image(0), prompt_image(1, (31, 64))]]
    compared(ours(source, files, encoder), oracle(source, files, encoder), images, num_images_per_prompt=2)


@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_two_adapters(
    variant: str, checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint(variant), [adapter(variant, kind, 1) for kind in ADAPTERS]
    pipeline, theirs = ours(source, files, encoder), oracle(source, files, encoder)
    compared(pipeline, theirs, [prompt_image(0), [prompt_image(1), prompt_image(2)]], scale=[0.4, 0.8])


@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_masks(variant: str, checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path) -> None:
    """One adapter has two images, each in its half. The other one sees its image everywhere in white."""
    source, files = checkpoint(variant), [adapter(variant, kind, 1) for kind in ADAPTERS]
    pipeline, theirs = ours(source, files, encoder), oracle(source, files, encoder)
    everywhere = Image.new("L", SIZE, 255)
    compared(
        pipeline,
        theirs,
        [[prompt_image(0), prompt_image(1)], [prompt_image(2)]],
        scale=[[0.7, 0.3], [0.4]],
        masks=[[mask(True), mask(False)], [everywhere]],
    )


@pytest.mark.parametrize("task", ["Img2Img", "Inpaint"])
def test_with_an_image_to_start_from(
    task: str, checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint("sd1"), [adapter("sd1", "base", 0)]
    theirs = oracle(source, files, encoder, f"StableDiffusion{task}Pipeline")
    more: dict[str, Any] = {"mask_image": mask(True)} if task == "Inpaint" else {}
    own = {"composite": False} if task == "Inpaint" else {}
    compared(
        ours(source, files, encoder),
        theirs,
        prompt_image(),
        own=own,
        image=given_image(*SIZE),
        strength=0.7,
        **more,
    )


def test_without_guidance_there_is_one_row(
    checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint("sd1"), [adapter("sd1", "plus", 0)]
    pipeline, theirs = ours(source, files, encoder), oracle(source, files, encoder)
    compared(pipeline, theirs, prompt_image(), scale=0.6, guidance_scale=1.0, negative_prompt=None)


def test_several_prompts_see_the_same_image(
    checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint("sd1"), [adapter("sd1", "base", 0)]
    options: dict[str, Any] = {
        "prompt": ["a lake", "a hill"],
        "negative_prompt": ["fog", "rain"],
        "num_inference_steps": 4,
        "height": SIZE[1],
        "width": SIZE[0],
        "output_type": "np",
        "ip_adapter_image": prompt_image(),
    }
    theirs = oracle(source, files, encoder)
    expected = theirs(**options, generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)]).images
    found = ours(source, files, encoder)(**options, seed=3).images
    assert np.abs(found - expected).max() <= LEVEL


def with_lora(unet: Any, path: Path) -> None:
    """Write a LoRA of rank 2, and add what it makes to diffusers' U-Net, which needs no PEFT then."""
    from safetensors.torch import save_file

    generator, made = torch.Generator().manual_seed(7), {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(("to_q", "to_k", "to_v")):
            down = torch.randn((2, module.in_features), generator=generator)
            up = 0.15 * torch.randn((module.out_features, 2), generator=generator)
            made |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
            with torch.no_grad():
                module.weight += up @ down
    save_file(made, path)


def test_with_a_controlnet_and_a_lora(
    checkpoint: Callable[[str], Path],
    adapter: Adapter,
    encoder: Path,
    diffusers_pipeline: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """All three at once, from a checkpoint and from a folder."""
    from tests.parity.checkpoints import randomise

    source, files = checkpoint("sd1"), [adapter("sd1", "base", 0)]
    module = diffusers.ControlNetModel.from_unet(
        diffusers_pipeline("sd1").unet, conditioning_embedding_out_channels=(4, 6, 8, 10)
    )
    randomise(module, 50).save_pretrained(tmp_path / "net")
    pipeline = StableDiffusionPipeline.from_pretrained(
        source,
        provider="cpu",
        threads=1,
        notify=lambda _: None,
        controlnet=tmp_path / "net",
        ip_adapter=files,
        image_encoder=encoder,
    )
    theirs = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        source,
        controlnet=diffusers.ControlNetModel.from_pretrained(tmp_path / "net"),
        image_encoder=oracle(source, files, encoder).image_encoder,
    )
    theirs.set_progress_bar_config(disable=True)
    with_lora(theirs.unet, tmp_path / "a.safetensors")
    theirs.load_ip_adapter(
        str(files[0].parent), subfolder="", weight_name=files[0].name, image_encoder_folder=None
    )
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    control = given_image(*SIZE)
    compared(
        pipeline,
        theirs,
        prompt_image(),
        scale=0.6,
        more={"image": control},
        own={"control_image": control},
    )
    without = pipeline("a lake", seed=3, num_inference_steps=4, output_type="np").images
    pipeline.unload_lora_weights()
    changed = pipeline("a lake", seed=3, num_inference_steps=4, output_type="np").images
    assert np.abs(without - changed).max() > 0.01


def test_embeddings_of_images(checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path) -> None:
    """Those that diffusers makes are read as diffusers reads them."""
    source, files = checkpoint("sd1"), [adapter("sd1", kind, 1) for kind in ADAPTERS]
    pipeline, theirs = ours(source, files, encoder), oracle(source, files, encoder)
    with torch.no_grad():
        embeds = theirs.prepare_ip_adapter_image_embeds(
            [prompt_image(0), [prompt_image(1), prompt_image(2)]], None, "cpu", 1, True
        )
    call: dict[str, Any] = {"prompt": "a lake", "num_inference_steps": 4, "output_type": "np"}
    call |= {"height": SIZE[1], "width": SIZE[0], "ip_adapter_image_embeds": embeds}
    expected = theirs(**call, generator=torch.Generator().manual_seed(3)).images
    assert np.abs(pipeline(**call, seed=3).images - expected).max() <= LEVEL
    only = [one[1:].numpy() for one in embeds]
    found = pipeline(**{**call, "ip_adapter_image_embeds": only}, seed=3).images
    assert np.abs(found - expected).max() <= LEVEL
