"""The sizes, inputs and task that a model supports, read from its configs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdrt.common.messages import wrong_key
from sdrt.families.cross_attentions import cross_attentions
from sdrt.families.defaults import Defaults
from sdrt.families.family import Family
from sdrt.families.specs import ControlNetSpec, IpAdapterSpec, T2IAdapterSpec, Task
from sdrt.families.stable_diffusion import TEXT_TO_IMAGE

__all__ = ["Capabilities", "ModelFacts", "sample_size", "whole"]

# No real model exceeds these. They stop a damaged config from making sdrt allocate huge arrays.
_MAX_VALUE = 2**16
_MAX_LEVELS = 16
_USUAL = Defaults(guidance_scale=TEXT_TO_IMAGE.guidance_scale)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model's files say.

    Attributes:
        denoiser: the denoiser's `config.json`.
        vae: the `config.json` of the VAE's decoder.
        text: the `config.json` of the last text encoder; empty if the folder lacks it.
        index: `model_index.json`.
        scheduler: `scheduler_config.json`.
        recorded: the defaults in the manifest; None without a manifest.
        names: the model's names, the most certain one first.
        any_size: False for a graph that was traced with a fixed upsampling factor of 2. Such a graph needs latents
            that can be halved once per level.
        has_text_encoder: whether the folder has every text encoder.
        has_vae_encoder: whether the folder has the VAE's encoder.
        controlnets: the `config.json` of each ControlNet, by its component.
        ip_adapters: the `config.json` of each IP-Adapter's projection, by its component.
        ip_adapter_files: what identifies the weights of each IP-Adapter.
    """

    denoiser: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    index: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    recorded: Mapping[str, Any] | None
    names: Sequence[str | None]
    any_size: bool
    has_text_encoder: bool
    has_vae_encoder: bool
    controlnets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ip_adapters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ip_adapter_files: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The sizes, inputs and task that a model supports.

    Attributes:
        latent_channels: the number of channels of the latents.
        embeds_width: the width of a text embedding.
        vae_scale_factor: how many pixels one latent covers, along each side.
        default_height, default_width: the size in pixels of an image if the call gives no size.
        size_step: height and width must be multiples of this many pixels.
        has_text_encoder: whether the folder has every text encoder.
        has_vae_encoder: whether the folder has the VAE's encoder.
        takes_pooled: whether the denoiser takes pooled embeddings.
        task: the task that the denoiser was trained for.
        defaults: what calls use for the settings that they do not give.
        guidance_width: the width of the embedded guidance scale that the denoiser takes; 0 for a denoiser without this
            input.
        is_consistency: whether its pipeline is that of latent consistency models, which runs all steps of image to
            image.
        pooled_width: the width of a pooled embedding; None if it is unknown.
        layer: how many layers a text encoder's usual layer is before the last one.
        takes_score: whether the denoiser takes an aesthetic score.
        scales_image: whether a denoiser for instructions takes the image's latents multiplied by the scaling factor.
        zeroes: whether the unconditional embeddings are zeros if there is no negative prompt.
        ignored: the settings that have no effect on the model, each with the reason.
        max_noise_level: the highest noise level of the small image that an upscaling model was trained with.
        controlnets: the ControlNets and T2I-Adapters, in the order in which a call gives their images.
        ip_adapters: the IP-Adapters, in the order in which a call gives their images.
        cross_attentions: the layers of the denoiser that see their images. See `cross_attentions`.
    """

    latent_channels: int
    embeds_width: int
    vae_scale_factor: int
    default_height: int
    default_width: int
    size_step: int
    has_text_encoder: bool = True
    has_vae_encoder: bool = True
    takes_pooled: bool = False
    task: Task = TEXT_TO_IMAGE
    defaults: Defaults = _USUAL
    guidance_width: int = 0
    is_consistency: bool = False
    pooled_width: int | None = None
    layer: int = 0
    takes_score: bool = False
    scales_image: bool = False
    zeroes: bool = False
    ignored: Mapping[str, str] = field(default_factory=dict)
    max_noise_level: int = 0
    controlnets: tuple[ControlNetSpec | T2IAdapterSpec, ...] = ()
    ip_adapters: tuple[IpAdapterSpec, ...] = ()
    cross_attentions: tuple[str, ...] = ()

    @classmethod
    def of(cls, family: Family, facts: ModelFacts) -> Capabilities:
        """Read the capabilities of a model of this family from what its files say.

        Raises:
            IntegrityError: a value is missing or out of bounds.
            UnsupportedModelError: the denoiser fits none of the family's tasks, or does not fit the text encoder.
        """
        owner, denoiser, index = family.denoiser.component, facts.denoiser, facts.index
        channels = whole(facts.vae, "latent_channels", family.vae.decoder)
        task = _task(family, denoiser, channels)
        factor = 2 ** (len(_list(facts.vae, "block_out_channels", family.vae.decoder)) - 1)
        height, width = default_size(family, denoiser, task, factor)
        takes_score = family.takes_score is not None and family.takes_score(denoiser, facts.text, index)
        return cls(
            latent_channels=channels,
            embeds_width=whole(denoiser, family.denoiser.embeds_width, owner),
            vae_scale_factor=factor,
            default_height=height,
            default_width=width,
            size_step=_size_step(family, facts, factor),
            has_text_encoder=facts.has_text_encoder,
            has_vae_encoder=facts.has_vae_encoder,
            takes_pooled=family.takes_pooled,
            task=task,
            defaults=_defaults(task, family, facts),
            guidance_width=_guidance_width(denoiser, owner),
            is_consistency=index.get("_class_name") in family.consistency_pipelines,
            pooled_width=_pooled_width(family, facts.text),
            layer=family.text_encoders[0].layer or 0,
            takes_score=takes_score,
            scales_image=index.get("is_cosxl_edit") is True,
            zeroes=bool(family.zeroes) and index.get(family.zeroes) is not False,
            ignored=family.ignored_settings(takes_score=takes_score),
            max_noise_level=_max_noise_level(index, denoiser, owner) if task.has_noise_level else 0,
            controlnets=tuple(_control_spec(name, config) for name, config in facts.controlnets.items()),
            ip_adapters=_ip_adapters(facts),
            cross_attentions=cross_attentions(denoiser) if facts.ip_adapters else (),
        )

    @property
    def guidance_scale(self) -> float:
        """The guidance scale if the call gives none."""
        return self.defaults.guidance_scale


def _control_spec(name: str, config: Mapping[str, Any]) -> ControlNetSpec | T2IAdapterSpec:
    if config.get("_class_name") == "T2IAdapter":
        return T2IAdapterSpec(component=name, factor=whole(config, "downscale_factor", name))
    return ControlNetSpec(component=name, pools=config.get("global_pool_conditions") is True)


def _ip_adapters(facts: ModelFacts) -> tuple[IpAdapterSpec, ...]:
    return tuple(
        IpAdapterSpec(
            component=name,
            width=whole(config, "width", name),
            embeds_width=whole(config, "embeds_width", name),
            reads_patches=bool(config.get("layers")),
            file=file,
        )
        for (name, config), file in zip(facts.ip_adapters.items(), facts.ip_adapter_files, strict=True)
    )


def _size_step(family: Family, facts: ModelFacts, factor: int) -> int:
    """What height and width must be multiples of, in pixels. `factor` is the width of a latent in pixels."""
    levels, owner = family.denoiser.levels, family.denoiser.component
    halved = 0 if levels is None else len(_list(facts.denoiser, levels, owner)) - 1
    return factor if facts.any_size else factor * 2**halved


def _defaults(task: Task, family: Family, facts: ModelFacts) -> Defaults:
    """The model's defaults. A manifest records those that an export derived from the name and the scheduler."""
    recorded = facts.recorded
    scheduler, names = (facts.scheduler, facts.names) if recorded is None else ({}, ())
    own = Defaults.of(
        task, family, index=facts.index, denoiser=facts.denoiser, scheduler=scheduler, names=names
    )
    return own if recorded is None else own.with_recorded(recorded)


def _guidance_width(denoiser: Mapping[str, Any], owner: str) -> int:
    return whole(denoiser, "time_cond_proj_dim", owner) if denoiser.get("time_cond_proj_dim") else 0


def _task(family: Family, denoiser: Mapping[str, Any], latent_channels: int) -> Task:
    for key in ("in_channels", "out_channels"):
        whole(denoiser, key, family.denoiser.component)
    return family.task_of(denoiser, latent_channels)


def _pooled_width(family: Family, text: Mapping[str, Any]) -> int | None:
    last = family.text_encoders[-1]
    is_known = last.pooled is not None and last.pooled_width in text
    return whole(text, last.pooled_width, last.component) if is_known else None


def _max_noise_level(index: Mapping[str, Any], denoiser: Mapping[str, Any], owner: str) -> int:
    """Read `max_noise_level` from the index. The default is 350, as in diffusers; the limit is the last class label."""
    labels = whole(denoiser, "num_class_embeds", owner)
    level = index.get("max_noise_level", 350)
    if type(level) is not int or level < 0:
        raise wrong_key("model_index.json", "max_noise_level", level, "a whole number of at least 0")
    return min(level, labels - 1)


def whole(config: Mapping[str, Any], key: str, owner: str) -> int:
    """Return `config[key]`, a count. `owner` is the component whose config it is.

    Raises:
        IntegrityError: the value is missing or not a whole number in 1..65536.
    """
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= _MAX_VALUE:
        raise wrong_key(
            f"{owner}/config.json", key, value, f"a whole number from 1 to {_MAX_VALUE}", component=owner
        )
    return value


def _list(config: Mapping[str, Any], key: str, owner: str) -> list[Any]:
    value = config.get(key)
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_LEVELS:
        raise wrong_key(
            f"{owner}/config.json", key, value, f"a list of 1 to {_MAX_LEVELS} items", component=owner
        )
    return value


def sample_size(denoiser: Mapping[str, Any], task: Task) -> Any:
    """Return the `sample_size` of a denoiser's config as diffusers' pipeline reads it.

    Configs of Stable Diffusion 1 from before diffusers 0.9 say 32, but the models were trained with 64.
    """
    size = denoiser.get("sample_size")
    is_small = type(size) is int and 1 <= size < task.old_sample_size
    return task.old_sample_size if is_small and _version(denoiser) < (0, 9) else size


def _version(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the first two numbers of the diffusers version that wrote a config, large ones if it is unknown."""
    found = re.match(r"v?(\d{1,9})(?:\.(\d{1,9}))?", str(config.get("_diffusers_version")), re.ASCII)
    return (int(found[1]), int(found[2] or 0)) if found else (999, 0)


def default_size(family: Family, denoiser: Mapping[str, Any], task: Task, factor: int) -> tuple[int, int]:
    """Return the default height and width in pixels.

    The config's `sample_size` is a number of latents, or a pair (height, width). Without it, the family's size counts.
    """
    size = sample_size(denoiser, task)
    if size is None and family.default_size is not None:
        return family.default_size, family.default_size
    if not isinstance(size, list) or len(size) != 2:
        size = [size, size]
    owner = family.denoiser.component
    height, width = (whole({"sample_size": side}, "sample_size", owner) for side in size)
    return height * factor, width * factor
