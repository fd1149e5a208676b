"""Images as CLIP's vision encoder takes them: transformers' `CLIPImageProcessor`, of Pillow and NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError

__all__ = ["ClipInput"]

Array = NDArray[np.float32]
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_SIDE, _BICUBIC = 224, 3
_LARGEST = 1 << 12
_CLASSES = ("CLIPFeatureExtractor", "CLIPImageProcessor", "CLIPImageProcessorFast")
_SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
# Names of the class, and what only transformers' own loading reads.
_IGNORED = frozenset(
    {"processor_class", "feature_extractor_type", "image_processor_type", "_valid_processor_keys"}
)
_KNOWN = frozenset({*_SWITCHES, "size", "resample", "crop_size", "rescale_factor", "image_mean", "image_std"})


@dataclass(frozen=True, kw_only=True)
class ClipInput:
    """How images are prepared. `shortest` is the length of the shorter side, or `size` fixes height and width.

    A step that is None is left out.
    """

    shortest: int | None = _SIDE
    size: tuple[int, int] | None = None
    resample: int = _BICUBIC
    crop: tuple[int, int] | None = (_SIDE, _SIDE)
    scale: float | None = 1 / 255
    mean: tuple[float, ...] | None = _MEAN
    std: tuple[float, ...] = _STD

    @classmethod
    def of(cls, config: Mapping[str, Any], component: str) -> ClipInput:
        """Read transformers' `preprocessor_config.json`. Keys that it leaves out have the class's defaults.

        Raises:
            UnsupportedModelError: a key is unknown, or a value is not supported. It names `component`.
        """
        return _Read(config, component).made()

    @classmethod
    def square(cls, side: int) -> ClipInput:
        """The usual preparation, for images of this side."""
        return cls(shortest=side, crop=(side, side))

    def __call__(self, image: NDArray[np.uint8]) -> Array:
        """Prepare an image [H, W, 3] of 8 bits. Return [1, 3, H', W'] in float32."""
        made: Array = _cropped(self._resized(image), self.crop).astype(np.float32)
        if self.scale is not None:
            # The bytes are exact in either type; the product is rounded once.
            made = np.multiply(made, self.scale, dtype=np.float64).astype(np.float32)
        if self.mean is not None:
            mean, std = (np.array(one, np.float32) for one in (self.mean, self.std))
            made = np.divide(made - mean, std)
        return np.ascontiguousarray(made.transpose(2, 0, 1)[None])

    def _resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        from PIL import Image

        height, width = image.shape[:2]
        if self.shortest is not None:
            short, long = sorted((height, width))
            longer = int(self.shortest * long / short)
            height, width = (self.shortest, longer) if height <= width else (longer, self.shortest)
        elif self.size is not None:
            height, width = self.size
        made = Image.fromarray(image).resize((width, height), resample=Image.Resampling(self.resample))
        return np.asarray(made)


def _cropped(image: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The middle of an image. Zeros surround one that is smaller."""
    if size is None:
        return image
    sides = [_place(whole, wanted) for whole, wanted in zip(image.shape[:2], size, strict=True)]
    made = np.zeros((*size, image.shape[2]), np.uint8)
    (rows, from_rows), (columns, from_columns) = sides
    made[rows, columns] = image[from_rows, from_columns]
    return made


def _place(whole: int, wanted: int) -> tuple[slice, slice]:
    """Where the pixels of one side come to stand, and which they are. The rounding is that of transformers."""
    if wanted <= whole:
        first = (whole - wanted) // 2
        return slice(0, wanted), slice(first, first + wanted)
    before = -((whole - wanted) // 2)
    return slice(before, before + whole), slice(0, whole)


class _Read:
    """Reads a `preprocessor_config.json`."""

    def __init__(self, config: Mapping[str, Any], component: str) -> None:
        self._config, self._component = config, component

    def made(self) -> ClipInput:
        self._check_keys()
        shortest, size = self._size() if self._flag("do_resize") else (None, None)
        normalizes = self._flag("do_normalize")
        return ClipInput(
            shortest=shortest,
            size=size,
            resample=self._resample(),
            crop=self._pair("crop_size") if self._flag("do_center_crop") else None,
            scale=self._number("rescale_factor", 1 / 255) if self._flag("do_rescale") else None,
            mean=self._three("image_mean", _MEAN) if normalizes else None,
            std=self._three("image_std", _STD),
        )

    def _check_keys(self) -> None:
        for key in ("feature_extractor_type", "image_processor_type"):
            if self._config.get(key) is not None and self._config[key] not in _CLASSES:
                raise self._refused(key, " or ".join(_CLASSES))
        for key, value in self._config.items():
            if key not in _KNOWN | _IGNORED and value is not None and value is not False:
                raise self._refused(key, "a key that sdrt knows")

    def _flag(self, key: str) -> bool:
        value = self._config.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._refused(key, "true or false")
        return value is not False

    def _resample(self) -> int:
        value = self._config.get("resample", _BICUBIC)
        if type(value) is not int or not 0 <= value <= 5:
            raise self._refused("resample", "a filter of Pillow, from 0 to 5")
        return value

    def _number(self, key: str, default: float) -> float:
        value = self._config.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < abs(value) < 1e6:
            raise self._refused(key, "a number other than 0")
        return float(value)

    def _three(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self._config.get(key)
        values = default if value is None else value
        fits = isinstance(values, (list, tuple)) and len(values) == 3
        if not fits or not all(isinstance(one, (int, float)) and abs(one) < 1e6 for one in values):
            raise self._refused(key, "three numbers")
        if key == "image_std" and 0 in values:
            raise self._refused(key, "three numbers other than 0")
        return tuple(float(one) for one in values)

    def _size(self) -> tuple[int | None, tuple[int, int] | None]:
        """The length of the shorter side, or height and width. A number is the former."""
        value = self._config.get("size")
        if value is None:
            return _SIDE, None
        if isinstance(value, Mapping) and set(value) == {"height", "width"}:
            return None, self._pair("size")
        side = value.get("shortest_edge") if isinstance(value, Mapping) and len(value) == 1 else value
        return self._side("size", side), None

    def _pair(self, key: str) -> tuple[int, int]:
        """Height and width. A number is both."""
        value = self._config.get(key)
        value = _SIDE if value is None else value
        if isinstance(value, Mapping):
            return self._side(key, value.get("height")), self._side(key, value.get("width"))
        return self._side(key, value), self._side(key, value)

    def _side(self, key: str, value: Any) -> int:
        if type(value) is not int or not 1 <= value <= _LARGEST:
            raise self._refused(key, f"pixels from 1 to {_LARGEST}")
        return value

    def _refused(self, key: str, fits: str) -> UnsupportedModelError:
        return UnsupportedModelError.expected(
            f"{self._component}/preprocessor_config.json: {key} is {brief(self._config.get(key), 80)}",
            fits,
            component=self._component,
        )
