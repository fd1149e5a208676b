"""Values that follow from the settings of a request."""

from __future__ import annotations

from collections.abc import Sequence

from sdrt.common.seeds import seeds_from
from sdrt.request.bounds import DEFAULT_STRENGTH
from sdrt.request.settings import Settings
from sdrt.tasks.hires import Latents

__all__ = ["DerivedSettings", "share_of"]


class DerivedSettings(Settings):
    """Settings, and what follows from them: counts, seeds, and prompts as lists."""

    @property
    def num_steps(self) -> int:
        """How many steps run, or would run without `denoising_start` and `denoising_end`.

        Like the next two, it is known when the number of steps is: after `fit`.
        """
        assert self.num_inference_steps is not None
        return self.num_inference_steps - self.num_skipped_steps

    @property
    def num_skipped_steps(self) -> int:
        """How many steps the strength skips, because the run starts from an image. The rule is that of diffusers."""
        if self.image is None or self.denoising_start is not None:
            return 0
        assert self.num_inference_steps is not None
        return self.num_inference_steps - share_of(self.effective_strength, self.num_inference_steps)

    @property
    def num_hires_steps(self) -> int:
        """How many steps run on the enlarged image of `hires_scale`."""
        steps = self.hires_steps or self.num_inference_steps
        assert steps is not None
        return share_of(self.hires_strength, steps)

    @property
    def image_is_latents(self) -> bool:
        """Whether `image` contains latents [N, C, h, w] instead of images."""
        return isinstance(self.image, Latents)

    @property
    def num_prompts(self) -> int:
        """How many prompts there are, as strings or as embeddings."""
        return len(self.prompts) if self.prompt_embeds is None else len(self.prompt_embeds)

    @property
    def num_images(self) -> int:
        """How many images the request makes."""
        return self.num_prompts * self.num_images_per_prompt

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each image."""
        assert self.seed is not None  # validation draws a missing one
        return seeds_from(self.seed, self.num_images) if isinstance(self.seed, int) else tuple(self.seed)

    @property
    def prompts(self) -> list[str]:
        """The prompts as a list. It is empty if the request has embeddings instead."""
        return _listed(self.prompt) if self.prompt is not None else []

    @property
    def negative_prompts(self) -> list[str]:
        """One negative prompt for each prompt. A single string applies to all prompts, and None is the empty string."""
        given = _listed(self.negative_prompt) if self.negative_prompt is not None else [""]
        return given * self.num_prompts if len(given) == 1 else given

    @property
    def prompts_2(self) -> list[str]:
        """One text for the second text encoder for each prompt. As in diffusers, an empty one stands for the prompt."""
        return self._or_else(self.prompt_2, self.prompts)

    @property
    def negative_prompts_2(self) -> list[str]:
        """One text for the second text encoder for each negative prompt. An empty one stands for that prompt."""
        return self._or_else(self.negative_prompt_2, self.negative_prompts)

    def _or_else(self, given: str | Sequence[str] | None, others: list[str]) -> list[str]:
        texts = _listed(given or "")
        texts = texts * len(others) if len(texts) == 1 else texts
        return [text or other for text, other in zip(texts, others, strict=True)]

    @property
    def effective_strength(self) -> float:
        """The strength, or its default: 1.0 with a mask or with outpainting, else 0.8."""
        if self.strength is not None:
            return self.strength
        return DEFAULT_STRENGTH if self.mask_image is None and self.outpaint is None else 1.0


def share_of(strength: float, steps: int) -> int:
    """How many of `steps` steps run. The rule is that of diffusers."""
    return min(int(steps * strength), steps)


def _listed(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)
