"""The type that describes a model family, and what follows from its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sdrt.errors import UnsupportedModelError
from sdrt.families.encoded import Encoded, join_widths
from sdrt.families.specs import DenoiserSpec, IndexEntry, Task, TextEncoderSpec, VaeSpec
from sdrt.schedulers import DiscreteNoiseSchedule, EdmNoiseSchedule, NoiseSchedule

__all__ = ["Family"]

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
        tasks: the tasks that models of the family may be trained for. The first needs no image.
        unsupported: the names of models that are not supported, by how many input channels their denoiser has beside
            the latents'.
        default_size: height and width in pixels if the denoiser's config has no `sample_size`.
        noise_schedules: the kinds of noise schedule that the family's models are trained on.
        lacks: the components that an index leaves empty. This distinguishes the family from others with the same
            pipeline classes.
        zeroes: the option of an index that says whether the embeddings are zeros if there is no negative prompt. If
            the option is missing, they are zeros. Empty in families that always encode the empty text.
        options: the options of an index that change images: true or false.
        checks_images: whether the family's pipelines have a safety checker. Not every checkpoint comes with one.
        takes_score: decides from the configs of the denoiser and the last text encoder, and from the index, whether a
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
    denoiser: DenoiserSpec = DenoiserSpec()  # noqa: RUF009 - frozen
    vae: VaeSpec = VaeSpec()  # noqa: RUF009 - frozen
    tasks: tuple[Task, ...]
    unsupported: Mapping[int, str] = field(default_factory=dict)
    default_size: int | None = None
    noise_schedules: tuple[type[NoiseSchedule], ...] = (DiscreteNoiseSchedule, EdmNoiseSchedule)
    lacks: frozenset[str] = frozenset()
    zeroes: str = ""
    options: tuple[str, ...] = ()
    checks_images: bool = False
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
        more = channels_in - latent_channels if isinstance(channels_in, int) else 0
        known = (
            f" (it is {self.unsupported[more]}, which is not supported)" if more in self.unsupported else ""
        )
        raise UnsupportedModelError(
            f"{self.denoiser.component} takes {channels_in} channels{known}, "
            f"{'with' if labels else 'without'} class labels, "
            f"and returns {channels_out}; the latents have {latent_channels}: expected to take {expected}{only}",
            component=self.denoiser.component,
        )
