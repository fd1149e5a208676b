"""The types that describe a model family: its components, the names of their inputs and outputs, and its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import UnsupportedModelError
from sdrt.schedulers import DiscreteNoiseSchedule, EdmNoiseSchedule, NoiseSchedule

__all__ = [
    "DenoiserSpec",
    "Encoded",
    "Family",
    "IndexEntry",
    "RowConditions",
    "Task",
    "TextEncoderSpec",
    "VaeSpec",
    "join_widths",
]

Array = NDArray[np.float32]
Config = Mapping[str, Any]

# Settings that not every family has.
_SECOND_PROMPT = ("prompt_2", "negative_prompt_2")
_POOLED = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_SIZES = (
    *("original_size", "negative_original_size"),
    *("crops_coords_top_left", "negative_crops_coords_top_left"),
)
_TARGET = ("target_size", "negative_target_size")
_SCORE = ("aesthetic_score", "negative_aesthetic_score")


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """The embeddings of one text.

    Attributes:
        embeds: [length, width], one vector per token.
        pooled: [width], one vector for the whole text; None in families without pooled embeddings.
    """

    embeds: Array
    pooled: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RowConditions:
    """The values from which the denoiser's extra inputs are computed, for one row of the batch.

    Attributes:
        pooled: [width], the pooled embedding of the row's text; None in families without pooled embeddings.
        height, width: the image's size in pixels.
        guidance_scale: the request's guidance scale.
        original_size, target_size: height and width in pixels that the model is conditioned on.
        crop: top and left edge, in pixels, of the crop that the model is conditioned on.
        aesthetic_score: the score that the model is conditioned on; None for models that take none.
    """

    pooled: Array | None
    height: int
    width: int
    guidance_scale: float
    original_size: tuple[int, int] = (0, 0)
    crop: tuple[int, int] = (0, 0)
    target_size: tuple[int, int] = (0, 0)
    aesthetic_score: float | None = None


def join_widths(encoded: Sequence[Encoded]) -> Encoded:
    """Concatenate the embeddings of several text encoders to [length, sum of widths].

    The result has the pooled embedding of the last encoder that makes one.
    """
    first, *others = encoded
    if not others:
        return first
    pooled = [one.pooled for one in encoded if one.pooled is not None]
    embeds = np.concatenate([one.embeds for one in encoded], axis=-1)
    return Encoded(embeds=embeds, pooled=pooled[-1] if pooled else None)


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec:
    """One text encoder.

    Attributes:
        component: its folder.
        tokenizer: the folder of its tokenizer.
        embeds: the output [batch, length, width]. With a `clip_skip` of N, sdrt reads the output `<embeds>.skip_N`.
        layer: which of the outputs `<embeds>.0`, `<embeds>.1`, … is read instead, counted back from the last one; with
            a `clip_skip` of N, N before that one. None if there is only one.
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
    """

    checkpoint: str = "vae"
    encoder: str = "vae_encoder"
    decoder: str = "vae_decoder"
    image: str = "sample"
    parameters: str = "latent_parameters"
    latents: str = "latent_sample"
    decoded: str = "sample"
    scaling_factor: float = 0.18215
    shifts: bool = False


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
        has_image_guidance: whether the image has its own guidance scale.
        needs: the arguments that a call must have.
        refuses: the arguments that have no meaning for the task.
        old_sample_size: what diffusers' pipeline takes for a smaller `sample_size` in a config older than diffusers
            0.9; 0 if it takes the config's.
        scaling_factor: the VAE's factor in diffusers' pipeline, whatever the config says; None if it is the config's.
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


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family. To add a family, add it to `sdrt.families.table.FAMILIES`.

    Attributes:
        name: the family's name in `sdrt.json`.
        title: the family's name in messages.
        pipelines: pipeline classes that an exported model's index may name, in addition to those of the tasks.
        checkpoint_pipelines: the same for the index of a torch checkpoint.
        consistency_pipelines: the pipeline classes of latent consistency models. They run all steps of image to image,
            at the timesteps below the strength. An exported model keeps the class of its checkpoint.
        index: the components that the index may list, by name. None means that the component's own config file names
            the class.
        ignored: components of a checkpoint that no task uses.
        absent: the entries with which an exported index says that it lacks these components.
        text_encoders: the text encoders, in the order in which `join` takes their embeddings.
        join: joins the embeddings that the text encoders make of one text into those that the denoiser takes.
        denoiser: the network that runs in every step.
        vae: the VAE's encoder and decoder.
        tasks: the tasks that models of the family may be trained for. The first is text to image.
        default_size: height and width in pixels if the denoiser's config has no `sample_size`.
        noise_schedules: the kinds of noise schedule that the family's models are trained on.
        lacks: the components that an index leaves empty. This distinguishes the family from others with the same
            pipeline classes.
        zeroes: the option of an index that says whether the embeddings are zeros if there is no negative prompt. They
            are if it is missing. Empty in families that always encode the empty text.
        options: the options of an index that change images: true or false.
        takes_score: decides by the configs of the denoiser and of the last text encoder, and from the index, whether a
            model takes an aesthetic score instead of the target size. None in families that take no sizes.
    """

    name: str
    title: str
    pipelines: frozenset[str] = frozenset()
    checkpoint_pipelines: frozenset[str] = frozenset()
    consistency_pipelines: frozenset[str] = frozenset()
    index: Mapping[str, IndexEntry | None]
    ignored: frozenset[str] = frozenset()
    absent: Mapping[str, Any] = field(default_factory=dict)
    text_encoders: tuple[TextEncoderSpec, ...] = (TextEncoderSpec(),)
    join: Callable[[Sequence[Encoded]], Encoded] = join_widths
    denoiser: DenoiserSpec = DenoiserSpec()
    vae: VaeSpec = VaeSpec()
    tasks: tuple[Task, ...]
    default_size: int | None = None
    noise_schedules: tuple[type[NoiseSchedule], ...] = (DiscreteNoiseSchedule, EdmNoiseSchedule)
    lacks: frozenset[str] = frozenset()
    zeroes: str = ""
    options: tuple[str, ...] = ()
    takes_score: Callable[[Config, Config, Config], bool] | None = None

    @property
    def components(self) -> tuple[str, ...]:
        """The folders of the graphs, in the order in which a run uses them."""
        texts = (spec.component for spec in self.text_encoders)
        return (*texts, self.denoiser.component, self.vae.decoder, self.vae.encoder)

    @property
    def roles(self) -> dict[str, str]:
        """Map each component to its name in timings and benchmarks.

        Every family uses the names of Stable Diffusion there, so that families can be compared. Further text encoders
        are `text_encoder_2` and so on.
        """
        texts = {
            spec.component: "text_encoder" + (f"_{number}" if number > 1 else "")
            for number, spec in enumerate(self.text_encoders, start=1)
        }
        vae = {self.vae.decoder: "vae_decoder", self.vae.encoder: "vae_encoder"}
        return {**texts, self.denoiser.component: "unet", **vae}

    @property
    def checkpoint_components(self) -> tuple[str, ...]:
        """The folders of the weights in a torch checkpoint."""
        texts = (spec.component for spec in self.text_encoders)
        return (*texts, self.denoiser.component, self.vae.checkpoint)

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The folders of the tokenizers."""
        return tuple(dict.fromkeys(spec.tokenizer for spec in self.text_encoders))

    @property
    def takes_pooled(self) -> bool:
        """Whether the denoiser takes pooled embeddings."""
        return any(spec.pooled is not None for spec in self.text_encoders)

    def ignored_settings(self, *, takes_score: bool) -> dict[str, str]:
        """Map each setting that has no effect on the family's models to the reason."""
        reasons: dict[str, str] = {}
        if len(self.text_encoders) < 2:
            reasons |= dict.fromkeys(_SECOND_PROMPT, f"{self.title} has one text encoder")
        if not self.takes_pooled:
            reasons |= dict.fromkeys(_POOLED, f"{self.title} takes no pooled embeddings")
        if self.takes_score is None:
            reasons |= dict.fromkeys((*_SIZES, *_TARGET, *_SCORE), f"{self.title} takes no sizes and scores")
        elif takes_score:
            reasons |= dict.fromkeys(_TARGET, "this model takes an aesthetic score instead")
        else:
            reasons |= dict.fromkeys(_SCORE, "this model takes no aesthetic score, unlike SDXL's refiner")
        return reasons

    @cached_property
    def checkpoint_classes(self) -> frozenset[str]:
        """The pipeline classes of the family's torch checkpoints."""
        return self.checkpoint_pipelines | {task.pipeline for task in self.tasks}

    @cached_property
    def pipeline_classes(self) -> frozenset[str]:
        """The pipeline classes of the family's models, exported or not."""
        return self.checkpoint_classes | self.pipelines

    def check_noise_schedule(self, schedule: NoiseSchedule, class_name: str) -> None:
        """Check that the family is trained on the noise schedule of a model's own scheduler, `class_name`.

        Raises:
            UnsupportedModelError: it is not.
        """
        if not isinstance(schedule, self.noise_schedules):
            raise UnsupportedModelError.advised(
                f"scheduler/scheduler_config.json: _class_name is {class_name!r}, which does not work "
                f"with {self.title}",
                "correct the file, or export the model again",
                component="scheduler",
            )

    def task_of(self, denoiser: Mapping[str, Any], latent_channels: int) -> Task:
        """Return the task that a denoiser was trained for, from its config.

        Raises:
            UnsupportedModelError: the channels and class labels fit no task of the family.
        """
        channels_in, channels_out, labels = (
            denoiser.get(key) for key in ("in_channels", "out_channels", "num_class_embeds")
        )
        if channels_out == latent_channels:
            for task in self.tasks:
                if channels_in == task.in_channels(latent_channels) and task.has_noise_level == bool(labels):
                    return task
        expected = ", ".join(f"{task.in_channels(latent_channels)} ({task.name})" for task in self.tasks)
        labelled = [task.name for task in self.tasks if task.has_noise_level]
        only = f". Only models for {labelled[0]} have class labels" if labelled else ""
        raise UnsupportedModelError(
            f"{self.denoiser.component} takes {channels_in} channels, {'with' if labels else 'without'} class labels, "
            f"and returns {channels_out}; the latents have {latent_channels}: expected to take {expected}{only}",
            component=self.denoiser.component,
        )
