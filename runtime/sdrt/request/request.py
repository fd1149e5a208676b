"""What is asked for: one frozen value, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdrt.common.arguments import described
from sdrt.common.rng import MAX_SEED
from sdrt.request.bounds import DEFAULT_STRENGTH
from sdrt.request.settings import Settings
from sdrt.request.validation import validate
from sdrt.tasks.hires import Latents

if TYPE_CHECKING:
    from sdrt.families.capabilities import Capabilities
    from sdrt.request.fitted import FittedRequest

__all__ = ["Request"]


@described
@dataclass(frozen=True, kw_only=True, eq=False)
class Request(Settings):
    """Images to make. The names and defaults are diffusers'.

    A missing seed is drawn here, so `seed` is always a number afterwards. Images are read here, too.

    Raises:
        RequestError: a value is not what it should be, or goes not with another.
    """

    def __post_init__(self) -> None:
        validate(self)

    def fit(self, capabilities: Capabilities) -> FittedRequest:
        """What this request means for a model. Raises `RequestError` for what the model cannot do."""
        from sdrt.request.fitted import fit

        return fit(self, capabilities)

    @property
    def num_steps(self) -> int:
        """Steps that are taken."""
        return self.num_inference_steps - self.num_skipped_steps

    @property
    def num_skipped_steps(self) -> int:
        """Steps that an image prompt stands for: diffusers' rule."""
        if self.image is None:
            return 0
        return self.num_inference_steps - _share(self.usual_strength, self.num_inference_steps)

    @property
    def num_hires_steps(self) -> int:
        """Steps that are taken of the enlarged picture."""
        return _share(self.hires_strength, self.hires_steps or self.num_inference_steps)

    @property
    def image_is_latents(self) -> bool:
        """Whether `image` holds latents [C, h, w] in place of pictures."""
        return isinstance(self.image, Latents)

    @property
    def num_prompts(self) -> int:
        """How many prompts, given as text or as embeddings."""
        return len(self.prompts) if self.prompt_embeds is None else len(self.prompt_embeds)

    @property
    def num_pictures(self) -> int:
        """How many pictures come out."""
        return self.num_prompts * self.num_images_per_prompt

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture."""
        assert self.seed is not None  # drawn on construction
        return tuple(range(self.seed, self.seed + self.num_pictures))

    @property
    def prompts(self) -> list[str]:
        """The prompts as a list; empty when embeddings were given."""
        return _listed(self.prompt) if self.prompt is not None else []

    @property
    def negative_prompts(self) -> list[str]:
        """One negative prompt per prompt; a single text serves all of them, none is the empty text."""
        given = _listed(self.negative_prompt) if self.negative_prompt is not None else [""]
        return given * self.num_prompts if len(given) == 1 else given

    @property
    def usual_strength(self) -> float:
        """The strength, or what it is where none is given."""
        if self.strength is not None:
            return self.strength
        return DEFAULT_STRENGTH if self.mask_image is None and self.outpaint is None else 1.0

    @property
    def last_seed(self) -> int:
        """The largest that leaves every picture one."""
        return MAX_SEED + 1 - self.num_pictures


def _share(strength: float, steps: int) -> int:
    return min(int(steps * strength), steps)


def _listed(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)
