"""The settings of image prompts: IP-Adapter (Ye et al. 2023, arXiv:2308.06721)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdrt.request.control_settings import ControlSettings
from sdrt.request.setting import Group, Label, Option, setting

__all__ = ["MAX_IMAGE_PROMPTS", "MAX_IP_ADAPTERS", "ImagePromptSettings"]

MAX_IP_ADAPTERS = 16
"""How many IP-Adapters a call can use at once."""
MAX_IMAGE_PROMPTS = 64
"""How many images they can see."""


Scale = float | Mapping[str, Any]
Scales = Scale | Sequence[Scale]


# The module of these needs NumPy, which the help of the command does without.
def _of_blocks(name: str, given: Any) -> Any:
    from sdrt.request.block_scales import BlockScales

    return BlockScales.of(name, given)


def _read(text: str) -> tuple[Any, ...]:
    from sdrt.request.block_scales import read_scales

    return read_scales(text)


def _write(scales: Any) -> str:
    from sdrt.request.block_scales import write_scales

    return write_scales(scales)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImagePromptSettings(ControlSettings):
    """Further rows of the table of settings, between `ControlSettings` and `Settings`."""

    ip_adapter_image: Any = setting(
        None,
        "Show this image to the model through its IP-Adapter, as a prompt beside the text.",
        more="Anything that {image} can be, except latents, of any size. With one IP-Adapter, a list has several "
        "images that it sees together. With several, a list has one entry for each: an image, or a list of images. All "
        "prompts of a call see the same images.",
        kind=str,
        group=Group.IMAGE_PROMPTS,
        option=Option(
            ("--ip-image", "--ip-adapter-image"),
            metavar="FILE",
            help="Show this image to the model through its IP-Adapter, as a prompt beside the text. Repeat the option "
            "for several.",
            repeats=True,
        ),
    )
    ip_adapter_scale: Scales | None = setting(
        None,
        "How much the image prompt counts. With 0, it has no effect.",
        more="One number for all IP-Adapters, or a list with one for each; with {ip_adapter_masks}, also one for each "
        "image. In place of a number, a dict has scales for single blocks of the U-Net, as in diffusers: "
        '{"up": {"block_0": [0, 1, 0]}}. By default, the scale of set_ip_adapter_scale.',
        usual="1",
        kind=float,
        bounds=(-100.0, 100.0),
        max_items=MAX_IMAGE_PROMPTS,
        takes_one=True,
        reads=_of_blocks,
        only_with=("ip_adapter_image", "ip_adapter_image_embeds"),
        group=Group.IMAGE_PROMPTS,
        option=Option(
            ("--ip-scale", "--ip-adapter-scale"),
            key="ip_scale",
            help="How much the image prompt counts. With 0, it has no effect. JSON has scales for single blocks of the "
            """U-Net: '{"up": {"block_0": [0, 1, 0]}}'.""",
        ),
        label=Label(
            "IP-Adapter scale",
            read=_read,
            write=_write,
            expected="numbers, or JSON with scales for blocks of the U-Net",
        ),
    )
    ip_adapter_masks: Any = setting(
        None,
        "Show the image prompt only to the part of the image where this mask is white.",
        more="As many masks as images, in the same order and nesting. They are scaled to the size of the result.",
        kind=str,
        only_with=("ip_adapter_image", "ip_adapter_image_embeds"),
        group=Group.IMAGE_PROMPTS,
        option=Option(
            ("--ip-mask", "--ip-adapter-mask"),
            metavar="FILE",
            help="Show the image prompt only to the part of the image where this mask is white. Repeat the option for "
            "several image prompts.",
            repeats=True,
        ),
    )
    ip_adapter_image_embeds: Any = setting(
        None,
        "Embeddings of images in place of {ip_adapter_image}: a list with one array for each IP-Adapter.",
        more="Each is [2, images, width], as in diffusers: the negative embeddings, then those of the images. "
        "[1, images, width] has only the latter. For plus adapters, it is [2, images, patches, width].",
        group=Group.PROGRAMS,
    )
