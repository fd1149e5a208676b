"""The sizes and the score that SDXL is conditioned on, with diffusers' rules for what a call leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdrt.errors import RequestError

if TYPE_CHECKING:
    from sdrt.request.fitted import FittedRequest

__all__ = ["DEFAULT_SCORE", "NEGATIVE_SCORE", "SizeConditions", "check_size_conditions"]

DEFAULT_SCORE, NEGATIVE_SCORE = 6.0, 2.5
_NEGATIVE = ("negative_original_size", "negative_crops_coords_top_left", "negative_target_size")
# Without one of these, text to image uses none of the three.
_NEEDED = ("negative_original_size", "negative_target_size")


@dataclass(frozen=True, kw_only=True)
class SizeConditions:
    """The sizes and the score of a row of the batch. Sizes are (height, width), the crop is (top, left), in pixels."""

    original_size: tuple[int, int]
    crop: tuple[int, int]
    target_size: tuple[int, int]
    aesthetic_score: float | None = None

    @classmethod
    def of(cls, request: FittedRequest, *, negative: bool) -> SizeConditions:
        """Return those of the prompt's rows, or of the negative prompt's."""
        positive = cls(
            original_size=request.original_size or request.size,
            crop=request.crops_coords_top_left or (0, 0),
            target_size=request.target_size or request.size,
            aesthetic_score=request.aesthetic_score,
        )
        return positive._negative(request) if negative else positive

    def _negative(self, request: FittedRequest) -> SizeConditions:
        original, crop, target = (getattr(request, name) for name in _NEGATIVE)
        takes_score = self.aesthetic_score is not None
        starts_from_text = request.completed.image is None and not takes_score
        if starts_from_text and (original is None or target is None):
            # diffusers' pipeline for text to image uses all of them or none.
            return self
        return SizeConditions(
            original_size=original or self.original_size,
            # Its pipelines for images use the crop only beside a score.
            crop=(crop or (0, 0)) if takes_score or starts_from_text else self.crop,
            target_size=target or self.target_size,
            aesthetic_score=request.negative_aesthetic_score,
        )


def check_size_conditions(request: FittedRequest) -> None:
    """Raise `RequestError` for a size of the negative prompt that has no effect."""
    if not request.guided:
        return
    used = SizeConditions.of(request, negative=True)
    for name, value in zip(_NEGATIVE, (used.original_size, used.crop, used.target_size), strict=True):
        given = getattr(request, name)
        if given in (None, value):
            continue
        if request.completed.image is None:
            needed = [size for size in _NEEDED if getattr(request, size) is None]
            raise RequestError.advised(
                f"{name} has no effect without {' and '.join(needed)}",
                f"give {'both' if len(needed) > 1 else 'it'}, or leave out {name}",
                joint="; ",
                argument=name,
            )
        raise RequestError.advised(
            f"{name} has no effect with an image: there, crops_coords_top_left is for both prompts",
            f"leave out {name}",
            joint="; ",
            argument=name,
        )
