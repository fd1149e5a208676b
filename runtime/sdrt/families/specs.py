"""The types of a family's rows: its networks, with the names of their inputs and outputs, and its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from sdrt.families import scaling_factors
from sdrt.families.encoded import RowConditions

__all__ = [
    "ControlNetSpec",
    "DenoiserSpec",
    "IndexEntry",
    "IpAdapterSpec",
    "T2IAdapterSpec",
    "Task",
    "TextEncoderSpec",
    "VaeSpec",
]


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec:
    """One text encoder.

    Attributes:
        component: its folder.
        tokenizer: the folder of its tokenizer.
        embeds: the output [batch, length, width]. With a `clip_skip` of N, sdrt reads the output `<embeds>.skip_N`.
        layer: which of the outputs `<embeds>.0`, `<embeds>.1`, … is read instead, counted back from the last one. With
            a `clip_skip` of N, sdrt reads the output N before it. None if there is only one output.
        pooled: the output [batch, width]; None if the family uses no pooled embedding of this encoder.
        pooled_width: the config key for the width of `pooled`.
        part: which part of a textual inversion for SDXL it reads: 0 for CLIP's, 1 for OpenCLIP's.
    """

    component: str = "text_encoder"
    tokenizer: str = "tokenizer"
    embeds: str = "last_hidden_state"
    layer: int | None = None
    pooled: str | None = None
    pooled_width: str = "projection_dim"
    part: int = 0


@dataclass(frozen=True, kw_only=True)
class DenoiserSpec:
    """The network that runs in every step.

    Attributes:
        component: its folder.
        sample: the input [batch, channels, h, w] for the noisy latents.
        timestep: the input for the timestep, a scalar or [1].
        embeds: the input [batch, length, width] for text embeddings.
        labels: the input [batch] for class labels. A model has it if its config has `num_class_embeds`.
        guidance: the input [batch, width] for the embedded guidance scale. A model has it if its config has the width,
            `time_cond_proj_dim`. It was trained to guide itself, so it runs without the unconditional half.
        extra: other inputs by name, each with the function that computes one row of it.
        output: the output, which has the shape of the noisy latents.
        embeds_width: the config key for the width of `embeds`.
        levels: the config key for a list with one entry per level. The network halves the latents between two levels.
            None for a network without levels.
    """

    component: str = "unet"
    sample: str = "sample"
    timestep: str = "timestep"
    embeds: str = "encoder_hidden_states"
    labels: str = "class_labels"
    guidance: str = "timestep_cond"
    extra: Mapping[str, Callable[[RowConditions], NDArray[Any]]] = field(default_factory=dict)
    output: str = "out_sample"
    embeds_width: str = "cross_attention_dim"
    levels: str | None = "block_out_channels"

    def inputs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the inputs that a graph with this `config.json` has."""
        labels = (self.labels,) if config.get("num_class_embeds") else ()
        guidance = (self.guidance,) if config.get("time_cond_proj_dim") else ()
        return (self.sample, self.timestep, self.embeds, *self.extra, *labels, *guidance)


@dataclass(frozen=True, kw_only=True)
class ControlNetSpec:
    """A network that sees a control image and guides the denoiser. It has the denoiser's inputs too.

    Attributes:
        component: its folder.
        pools: whether it guides with the mean of all pixels only.
        image: the input [batch, channels, H, W] for the control image, from 0 to 1.
        scale: the input [outputs] for the factor of each output.
    """

    component: str
    pools: bool = False
    image: str = "controlnet_cond"
    scale: str = "conditioning_scale"

    @property
    def middle(self) -> str:
        """The last output. The others are called `down_block_res_sample_0`, and so on."""
        return "mid_block_res_sample"


@dataclass(frozen=True, kw_only=True)
class T2IAdapterSpec:
    """A T2I-Adapter, which guides the denoiser too, but sees only a control image, and so runs once for an image.

    Attributes:
        component: its folder.
        factor: what height and width of the control image must be multiples of.
        image: the input [batch, channels, H, W] for the control image, from 0 to 1. One channel is for shades of grey.
    """

    component: str
    factor: int
    image: str = "adapter_cond"


@dataclass(frozen=True, kw_only=True)
class IpAdapterSpec:
    """An IP-Adapter, which makes the denoiser see images. This is its projection, from what CLIP sees to tokens.

    Attributes:
        component: its folder.
        width: the width of its tokens.
        embeds_width: the width of what it reads.
        reads_patches: whether it reads the tokens of all patches, and not the embedding of the whole image.
        file: what identifies the weights in the denoiser that belong to it.
        image: its input [batch, embeds_width], or [batch, patches, embeds_width].
        tokens: its output [batch, tokens, width].
    """

    component: str
    width: int
    embeds_width: int
    reads_patches: bool = False
    file: str = ""
    image: str = "image_embeds"
    tokens: str = "image_tokens"


@dataclass(frozen=True, kw_only=True)
class VaeSpec:
    """The VAE, as an encoder and a decoder.

    Attributes:
        checkpoint: the folder that holds both in a torch checkpoint.
        encoder, decoder: their folders in an exported model.
        image: the encoder's input [1, 3, H, W], with values in -1..1.
        parameters: the encoder's output [1, 2 * channels, h, w]: mean, then log variance.
        latents: the decoder's input [1, channels, h, w].
        decoded: the decoder's output [1, 3, H, W].
        scaling_factor: the factor of a config that has none.
        shifts: True if the denoiser's latents are (latents - shift_factor) * scaling_factor. If False, sdrt refuses a
            config with a shift_factor.
        normalises: whether a config may have a mean and a deviation for each channel, latents_mean and latents_std, as
            Playground 2.5 has. If False, sdrt refuses them.
    """

    checkpoint: str = "vae"
    encoder: str = "vae_encoder"
    decoder: str = "vae_decoder"
    image: str = "sample"
    parameters: str = "latent_parameters"
    latents: str = "latent_sample"
    decoded: str = "sample"
    scaling_factor: float = scaling_factors.SD
    shifts: bool = False
    normalises: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that denoisers are trained for. The denoiser's input channels and class labels tell which task it is.

    Attributes:
        name: the task's name in messages.
        pipeline: diffusers' pipeline class for the task.
        sees_latents: whether the denoiser's input also has the latents of an image.
        planes: how many further input channels it has, for a mask or for the colours of a small image.
        has_noise_level: whether it takes the noise level of the small image, as a class label.
        guidance_scale: diffusers' default guidance scale.
        masked_guidance_scale: its default with a mask; None for the same.
        strength, masked_strength: diffusers' default strengths, without a mask and with one.
        control_scale, masked_control_scale: diffusers' default scales of ControlNets, with an image and with a mask.
        has_image_guidance: whether the image has its own guidance scale.
        needs: the arguments that a call must have.
        refuses: the arguments that have no meaning for the task.
        old_sample_size: what diffusers' pipeline takes for a smaller `sample_size` in a config older than diffusers
            0.9; 0 if it takes the config's.
        scaling_factor: the VAE's factor in diffusers' pipeline if it ignores the config's; None if it does not.
    """

    name: str
    pipeline: str
    sees_latents: bool = False
    planes: int = 0
    has_noise_level: bool = False
    guidance_scale: float = 7.5
    masked_guidance_scale: float | None = None
    strength: float = 0.8
    masked_strength: float = 1.0
    control_scale: float = 0.8
    masked_control_scale: float = 0.5
    has_image_guidance: bool = False
    needs: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    old_sample_size: int = 0
    scaling_factor: float | None = None

    def in_channels(self, latent_channels: int) -> int:
        """Return the number of input channels of a denoiser for this task."""
        return latent_channels * (2 if self.sees_latents else 1) + self.planes


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """The classes that an entry of `model_index.json` may name.

    Attributes:
        library: the package that defines `classes`.
        classes: the classes that a torch checkpoint may name.
        exported: the classes that exporters write for an ONNX graph.
        required: whether a torch checkpoint must have the entry.
    """

    library: str
    classes: frozenset[str]
    exported: frozenset[str] = frozenset()
    required: bool = True
