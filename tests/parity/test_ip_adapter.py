"""Image prompts against diffusers' pipelines, on tiny random weights: tasks, several images and adapters, masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdrt import StableDiffusionPipeline
from tests.made_once import MadeOnce
from tests.parity.image_prompts import given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

LEVEL, LATENTS = 1 / 255, 2e-3
SIZE = (72, 48)
ADAPTERS = ("base", "plus")

Adapter = Callable[[str, str, int], Path]


def prompt_image(number: int = 0, size: tuple[int, int] = (50, 40)) -> Image.Image:
    drawn = Image.new("RGB", size, (40 * number, 90, 200 - 60 * number))
    ImageDraw.Draw(drawn).ellipse((9, 5 + 4 * number, 33, 30), fill=(250, 60 * number, 30))
    return drawn


def mask(left: bool) -> Image.Image:
    drawn = Image.new("L", SIZE)
    ImageDraw.Draw(drawn).rectangle((0, 0, 30, 48) if left else (31, 0, 72, 48), fill=255)
    return drawn


@pytest.fixture(scope="session")
def encoder(made_once: MadeOnce) -> Path:
    """A vision encoder, in a folder."""
    from tests.parity.ip_adapters import image_encoder_folder

    return made_once("ip_adapter/encoder", lambda folder: image_encoder_folder(folder) and None)


@pytest.fixture(scope="session")
def adapter(made_once: MadeOnce, diffusers_pipeline: Callable[[str], Any]) -> Adapter:
    """The file of an IP-Adapter of a kind for a variant's U-Net. The numbers give different ones."""
    from tests.parity.ip_adapters import adapter_file

    def make(variant: str, kind: str, number: int, folder: Path) -> None:
        folder.mkdir()
        adapter_file(folder / "adapter.safetensors", diffusers_pipeline(variant).unet, kind, 60 + number)

    return lambda variant, kind, number: (
        made_once(f"ip_adapter/{variant}-{kind}-{number}", lambda folder: make(variant, kind, number, folder))
        / "adapter.safetensors"
    )


@functools.cache
def opened(source: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        source, provider="cpu", threads=1, notify=lambda _: None, **options
    )


def ours(source: Path, files: Sequence[Path], encoder: Path) -> StableDiffusionPipeline:
    made = opened(source)
    made.load_ip_adapter(list(files), image_encoder=encoder)
    return made


def oracle(source: Path, files: Sequence[Path], encoder: Path, kind: str = "DiffusionPipeline") -> Any:
    from transformers import CLIPVisionModelWithProjection

    made = getattr(diffusers, kind).from_pretrained(
        source, image_encoder=CLIPVisionModelWithProjection.from_pretrained(encoder)
    )
    made.set_progress_bar_config(disable=True)
    made.load_ip_adapter(
        [str(one.parent) for one in files],
        subfolder=[""] * len(files),
        weight_name=[one.name for one in files],
        image_encoder_folder=None,
    )
    return made


def their_masks(masks: Any, height: int, width: int) -> dict[str, Any]:
    """diffusers' argument for masks, a list of them for each adapter. Empty without any."""
    from diffusers.image_processor import IPAdapterMaskProcessor

    if masks is None:
        return {}
    process = IPAdapterMaskProcessor().preprocess
    grouped = [process(group, height=height, width=width) for group in masks]
    tensors = [one.reshape(1, one.shape[0], one.shape[2], one.shape[3]) for one in grouped]
    return {"cross_attention_kwargs": {"ip_adapter_masks": tensors}}


def compared(
    pipeline: StableDiffusionPipeline,
    theirs: Any,
    images: Any,
    *,
    scale: Any = 1.0,
    masks: Any = None,
    more: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Compare images and latents. `more` is for diffusers alone, `own` for sdrt."""
    width, height = SIZE
    call: dict[str, Any] = {
        "prompt": "a lake",
        "negative_prompt": "fog",
        "num_inference_steps": 5,
        "guidance_scale": 5.0,
        **options,
    }
    theirs.set_ip_adapter_scale(scale)
    given = their_masks(masks, height, width)
    pipeline.set_ip_adapter_scale(scale)
    for kind, tolerance in (("np", LEVEL), ("latent", LATENTS)):
        seeds = [3 + index for index in range(options.get("num_images_per_prompt", 1))]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        generator = generators if len(seeds) > 1 else generators[0]
        size = {} if "image" in call and "mask_image" not in call else {"height": height, "width": width}
        expected = theirs(
            **call,
            **size,
            **given,
            **(more or {}),
            ip_adapter_image=images,
            generator=generator,
            output_type=kind,
        ).images
        found = pipeline(
            **call,
            **(own or {}),
            ip_adapter_image=images,
            ip_adapter_masks=masks,
            height=height,
            width=width,
            seed=3,
            output_type=kind,
        ).images
        error = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
        limit = tolerance * (1 if kind == "np" else max(1.0, float(np.abs(np.asarray(expected)).max())))
        assert error <= limit, (kind, error)


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


BLOCKS: list[Any] = [
    {"up": {"block_1": [0.0, 1.0, 0.3]}},
    {"down": {"block_0": [0.0, 1.5]}, "up": {"block_1": [0.9]}, "mid": 0.4},
    {"down": 0.7, "mid": [2.0]},
    {"up": [0.1, 0.8, -0.5]},
    {},
]


@pytest.mark.parametrize("scale", BLOCKS, ids=str)
@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_scales_of_single_blocks(
    variant: str, scale: Any, checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    """InstantStyle. What a dict does not name has the scale 0."""
    source, files = checkpoint(variant), [adapter(variant, "base", 0)]
    theirs = oracle(source, files, encoder)
    scale = fitting(theirs.unet, scale)
    compared(ours(source, files, encoder), theirs, prompt_image(), scale=scale)


def fitting(unet: Any, scale: Any) -> Any:
    """The scale for the first block of this U-Net that sees images, with a number for each of its transformers."""
    made = dict(scale)
    for way, value in scale.items():
        if way == "mid" or not isinstance(value, (dict, list)):
            continue
        blocks = unet.down_blocks if way == "down" else unet.up_blocks
        seeing = {number: one for number, one in enumerate(blocks) if hasattr(one, "attentions")}
        first, numbers = min(seeing), value if isinstance(value, list) else next(iter(value.values()))
        cut = numbers[: len(seeing[first].attentions)] if len(numbers) > 1 else numbers
        made[way] = cut if isinstance(value, list) else {f"block_{first}": cut}
    return made


def test_scales_of_blocks_for_two_adapters_with_masks(
    checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint("xl"), [adapter("xl", kind, 1) for kind in ADAPTERS]
    pipeline, theirs = ours(source, files, encoder), oracle(source, files, encoder)
    scale = [fitting(theirs.unet, BLOCKS[0]), fitting(theirs.unet, BLOCKS[1])]
    compared(pipeline, theirs, [prompt_image(0), [prompt_image(1), prompt_image(2)]], scale=scale)
    everywhere = Image.new("L", SIZE, 255)
    compared(
        pipeline,
        theirs,
        [[prompt_image(0), prompt_image(1)], [prompt_image(2)]],
        scale=[scale[0], [0.4]],
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
