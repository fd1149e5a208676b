"""The settings that SDXL is conditioned on beside the text: sizes, crops, scores (Podell et al. 2023, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.request.pairs import Corner, Size
from sdrt.request.setting import Group, Label, Option, setting
from sdrt.request.usual_settings import UsualSettings

__all__ = ["SizeSettings"]


def _sized(spelling: str, about: str | None = None, usual: str | None = None) -> Option:
    """The option of a size. Its text has the width first; the pair in Python has the height first."""
    return Option((spelling,), metavar="WIDTHxHEIGHT", help=about, usual=usual)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SizeSettings(UsualSettings):
    """Rows of the table of settings, which `Settings` continues. The names and defaults are those of diffusers."""

    original_size: tuple[int, int] | None = setting(
        None,
        "The size of the training images to imitate, (height, width). A small size makes a blurred image.",
        usual="the image's own size",
        kind=Size,
        group=Group.SIZES,
        option=_sized(
            "--original-size",
            "The size of the training images to imitate. A small size makes a blurred image.",
        ),
        label=Label("Original size"),
    )
    crops_coords_top_left: tuple[int, int] | None = setting(
        None,
        "The crop of the training images to imitate, (top, left). Large numbers cut subjects off.",
        usual="(0, 0)",
        kind=Corner,
        group=Group.SIZES,
        option=Option(
            ("--crops-coords-top-left",),
            metavar="TOP,LEFT",
            help="The crop of the training images to imitate. Large numbers cut subjects off.",
            usual="0,0",
        ),
        label=Label("Crop top left"),
    )
    target_size: tuple[int, int] | None = setting(
        None,
        "The size of the image that the model is given, (height, width).",
        usual="the image's own size",
        kind=Size,
        group=Group.SIZES,
        option=_sized("--target-size", "The size of the image that the model is given."),
        label=Label("Target size"),
    )
    negative_original_size: tuple[int, int] | None = setting(
        None,
        "The same as {original_size} for the negative prompt.",
        more="As in diffusers, text to image needs {negative_target_size} too.",
        usual="original_size",
        kind=Size,
        group=Group.SIZES,
        option=_sized("--negative-original-size", usual="that of --original-size"),
        label=Label("Negative original size"),
    )
    negative_crops_coords_top_left: tuple[int, int] | None = setting(
        None,
        "The same as {crops_coords_top_left} for the negative prompt.",
        more="As in diffusers, text to image needs the two other negative sizes too, and image to image uses it only "
        "with models that take an aesthetic score.",
        usual="(0, 0)",
        kind=Corner,
        group=Group.SIZES,
        option=Option(("--negative-crops-coords-top-left",), metavar="TOP,LEFT", usual="0,0"),
        label=Label("Negative crop top left"),
    )
    negative_target_size: tuple[int, int] | None = setting(
        None,
        "The same as {target_size} for the negative prompt.",
        more="As in diffusers, text to image needs {negative_original_size} too.",
        usual="target_size",
        kind=Size,
        group=Group.SIZES,
        option=_sized("--negative-target-size", usual="that of --target-size"),
        label=Label("Negative target size"),
    )
    aesthetic_score: float | None = setting(
        None,
        "The aesthetic score of the training images to imitate. Only for SDXL's refiner.",
        usual="6",
        kind=float,
        bounds=(-1e4, 1e4),
        group=Group.SIZES,
        option=Option(("--aesthetic-score",)),
        label=Label("Aesthetic score"),
    )
    negative_aesthetic_score: float | None = setting(
        None,
        "The same as {aesthetic_score} for the negative prompt.",
        usual="2.5",
        kind=float,
        bounds=(-1e4, 1e4),
        group=Group.SIZES,
        option=Option(("--negative-aesthetic-score",)),
        label=Label("Negative aesthetic score"),
    )
