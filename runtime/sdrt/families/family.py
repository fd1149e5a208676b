"""The types of a family's row: its components, the names of their inputs and outputs, and its tasks."""

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What text encoders make of one text.

    Attributes:
        embeds: [length, width], a vector for each token.
        pooled: [width], one vector for the whole text; None in families that have none.
    """

    embeds: Array
    pooled: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RowConditions:
    """What the denoiser's extra inputs can be computed from, for one row of the batch.

    Attributes:
        pooled: [width], of the row's text; None in families that have none.
        height, width: the image's, in pixels.
        guidance_scale: the request's.
    """

    pooled: Array | None
    height: int
    width: int
    guidance_scale: float


def join_widths(encoded: Sequence[Encoded]) -> Encoded:
    """Embeddings of several text encoders side by side, [length, sum of widths]; the last one's pooled embedding."""
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
        embeds: the output [batch, length, width]. With `clip_skip` N it is the output of that name and `.skip_N`.
        pooled: the output [batch, width]; None if the family takes none from this encoder.
    """

    component: str = "text_encoder"
    tokenizer: str = "tokenizer"
    embeds: str = "last_hidden_state"
    pooled: str | None = None


@dataclass(frozen=True, kw_only=True)
class DenoiserSpec:
    """The network that is evaluated in every step.

    Attributes:
        component: its folder.
        sample: the input [batch, channels, h, w] for the noisy latents.
        timestep: the input for the timestep, a scalar or [1].
        embeds: the input [batch, length, width] for text embeddings.
        labels: the input [batch] for class labels, of models whose config has `num_class_embeds`.
        extra: other inputs, and how to compute one row of each.
        output: the output, shaped like the noisy latents.
        embeds_width: the config key of the width of `embeds`.
        levels: the config key of a list with an entry for each level, between which the latents are halved; None for
            a network that does not halve them.
    """

    component: str = "unet"
    sample: str = "sample"
    timestep: str = "timestep"
    embeds: str = "encoder_hidden_states"
    labels: str = "class_labels"
    extra: Mapping[str, Callable[[RowConditions], NDArray[Any]]] = field(default_factory=dict)
    output: str = "out_sample"
    embeds_width: str = "cross_attention_dim"
    levels: str | None = "block_out_channels"

    def inputs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """The inputs of a graph with this config."""
        labels = (self.labels,) if config.get("num_class_embeds") else ()
        return (self.sample, self.timestep, self.embeds, *self.extra, *labels)


@dataclass(frozen=True, kw_only=True)
class VaeSpec:
    """The VAE, as an encoder and a decoder.

    Attributes:
        checkpoint: the folder of both in a torch checkpoint.
        encoder, decoder: their folders in an exported model.
        image: the encoder's input [1, 3, H, W] in -1..1.
        parameters: the encoder's output [1, 2 * channels, h, w], mean and log variance.
        latents: the decoder's input [1, channels, h, w].
        decoded: the decoder's output [1, 3, H, W].
        shifts: whether the denoiser's latents are (latents - shift_factor) * scaling_factor, as the config says; if
            not, a config with a shift is refused.
    """

    checkpoint: str = "vae"
    encoder: str = "vae_encoder"
    decoder: str = "vae_decoder"
    image: str = "sample"
    parameters: str = "latent_parameters"
    latents: str = "latent_sample"
    decoded: str = "sample"
    shifts: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a denoiser was trained for, told apart by what it sees beside the latents.

    Attributes:
        name: what messages call it.
        pipeline: diffusers' class for it.
        sees_latents: whether the denoiser sees latents of an image beside those that it denoises.
        planes: how many other channels it sees: a mask, or a small image's colours.
        has_noise_level: whether it is told how noisy that small image is.
        guidance_scale: diffusers' default.
        has_image_guidance: whether the image has a guidance scale of its own.
        needs: the arguments that a call must have.
        refuses: the arguments that mean nothing to it.
    """

    name: str
    pipeline: str
    sees_latents: bool = False
    planes: int = 0
    has_noise_level: bool = False
    guidance_scale: float = 7.5
    has_image_guidance: bool = False
    needs: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()

    def in_channels(self, latent_channels: int) -> int:
        """Channels that a denoiser of this task takes."""
        return latent_channels * (2 if self.sees_latents else 1) + self.planes


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """The classes that an entry of `model_index.json` may name.

    Attributes:
        library: the package of `classes`.
        classes: those of a torch checkpoint.
        exported: those that exporters write for an ONNX graph.
        required: whether a torch checkpoint must have the entry.
    """

    library: str
    classes: frozenset[str]
    exported: frozenset[str] = frozenset()
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family. Adding one is adding a row to `sdrt.families.table.FAMILIES`.

    Attributes:
        name: what `sdrt.json` calls it.
        title: what messages call it.
        pipelines: the pipeline classes that name it in the index of an exported model, besides those of its tasks.
        checkpoint_pipelines: the same for a torch checkpoint.
        index: the components that the index may have, by their names there. None leaves the class to the
            component's own config file.
        ignored: components of a checkpoint that no task uses.
        text_encoders: in the order in which `join` takes what they make of a text.
        join: from what each text encoder makes of one text to what the denoiser takes.
        tasks: the first is text to image.
        default_size: sides of an image in pixels, where the denoiser's config has no `sample_size`.
        noise_schedules: the kinds of noise schedule that its models are trained on.
    """

    name: str
    title: str
    pipelines: frozenset[str] = frozenset()
    checkpoint_pipelines: frozenset[str] = frozenset()
    index: Mapping[str, IndexEntry | None]
    ignored: frozenset[str] = frozenset()
    text_encoders: tuple[TextEncoderSpec, ...] = (TextEncoderSpec(),)
    join: Callable[[Sequence[Encoded]], Encoded] = join_widths
    denoiser: DenoiserSpec = DenoiserSpec()
    vae: VaeSpec = VaeSpec()
    tasks: tuple[Task, ...]
    default_size: int | None = None
    noise_schedules: tuple[type[NoiseSchedule], ...] = (DiscreteNoiseSchedule, EdmNoiseSchedule)

    @property
    def components(self) -> tuple[str, ...]:
        """The folders of its graphs, in the order in which a run uses them."""
        texts = (spec.component for spec in self.text_encoders)
        return (*texts, self.denoiser.component, self.vae.decoder, self.vae.encoder)

    @property
    def checkpoint_components(self) -> tuple[str, ...]:
        """The folders of the weights in a torch checkpoint."""
        texts = (spec.component for spec in self.text_encoders)
        return (*texts, self.denoiser.component, self.vae.checkpoint)

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The folders of its tokenizers."""
        return tuple(dict.fromkeys(spec.tokenizer for spec in self.text_encoders))

    @property
    def takes_pooled(self) -> bool:
        """Whether the denoiser is given pooled embeddings."""
        return any(spec.pooled is not None for spec in self.text_encoders)

    @cached_property
    def checkpoint_classes(self) -> frozenset[str]:
        """The pipeline classes of its torch checkpoints."""
        return self.checkpoint_pipelines | {task.pipeline for task in self.tasks}

    @cached_property
    def pipeline_classes(self) -> frozenset[str]:
        """The pipeline classes of its models, exported or not."""
        return self.checkpoint_classes | self.pipelines

    def check_noise_schedule(self, schedule: NoiseSchedule, class_name: str) -> None:
        """Raise `UnsupportedModelError` for a model's own scheduler that its family is not trained for."""
        if not isinstance(schedule, self.noise_schedules):
            raise UnsupportedModelError(
                f"scheduler/scheduler_config.json: _class_name is {class_name!r}, which is not for {self.title}: "
                "correct the file, or export the model again"
            )

    def task_of(self, denoiser: Mapping[str, Any], latent_channels: int) -> Task:
        """The task of a denoiser, from its config. Raises `UnsupportedModelError` for one that is of none."""
        seen, made, labels = (
            denoiser.get(key) for key in ("in_channels", "out_channels", "num_class_embeds")
        )
        if made == latent_channels:
            for task in self.tasks:
                if seen == task.in_channels(latent_channels) and task.has_noise_level == bool(labels):
                    return task
        expected = ", ".join(f"{task.in_channels(latent_channels)} ({task.name})" for task in self.tasks)
        labelled = [task.name for task in self.tasks if task.has_noise_level]
        only = f"; with class labels only for {labelled[0]}" if labelled else ""
        raise UnsupportedModelError(
            f"{self.denoiser.component} takes {seen} channels, {'with' if labels else 'without'} class labels, and "
            f"gives {made}, of latents with {latent_channels}: expected to take {expected}{only}",
            component=self.denoiser.component,
        )
