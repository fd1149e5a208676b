"""Scales of an image prompt for single blocks of the U-Net, as `set_ip_adapter_scale` of diffusers takes them.

InstantStyle (Wang et al. 2024, arXiv:2404.02733) shows an image only to the blocks that decide style or layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sdrt.common.messages import brief, refused
from sdrt.errors import RequestError
from sdrt.families.cross_attentions import MIDDLE
from sdrt.request.checks import real_or_int

__all__ = ["BlockScales", "read_scales", "write_scales"]

_WAYS = ("down", "up")
_FITS = 'a dict such as {"down": {"block_2": [0, 1]}, "up": {"block_0": [0, 1, 0]}, "mid": 0}'
_MOST = 100.0


class BlockScales(dict[str, Any]):
    """A scale for each block, or each transformer of a block. What is not named has the scale 0, as in diffusers.

    "down" and "up" have a number, a list, or a dict with either for each block. A list has one number for each
    transformer of a block, or one for all. "mid" has a number.
    """

    @classmethod
    def of(cls, name: str, given: Any) -> BlockScales:
        """Check a dict. `name` is the argument. Raises `RequestError`."""
        made = cls()
        for way, value in given.items():
            if way not in (*_WAYS, MIDDLE):
                raise refused(name, f"has {brief(way)}", f"down, mid or up, as in {_FITS}")
            if isinstance(value, Mapping) and way in _WAYS:
                made[way] = {
                    str(block): _numbers(name, f"{way}.{block}", one) for block, one in value.items()
                }
            else:
                made[way] = _numbers(name, way, value)
        return made

    def __bool__(self) -> bool:
        return any(number != 0 for _, numbers in self._parts() for number in _listed(numbers))

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """The scales of each place that is named, such as "up.block_0" or "mid"."""
        for way, value in self.items():
            if isinstance(value, dict):
                yield from ((f"{way}.{block}", one) for block, one in value.items())
            else:
                yield way, value

    def check_fits(self, name: str, layers: Sequence[str]) -> None:
        """Check that a U-Net with these `layers` has every place. Raises `RequestError` about the argument `name`."""
        counts: dict[str, int] = {}
        for place in dict.fromkeys(layers):
            block = place.rpartition(".")[0] or place
            counts[block] = counts.get(block, 0) + 1
        for place, numbers in self._parts():
            blocks = [one for one in counts if one == place or one.partition(".")[0] == place]
            if not blocks:
                raise refused(name, f"has {brief(place)}", f"blocks that see images: {', '.join(counts)}")
            for block in blocks:
                if len(_listed(numbers)) not in (1, counts[block]):
                    fits = f"1 or {counts[block]}" if counts[block] > 1 else "1"
                    raise refused(name, f"has {len(numbers)} numbers for {block}", fits)

    def of_layers(self, layers: Sequence[str]) -> list[float]:
        """The scale of each of the `layers`, which have been checked."""
        parts = dict(self._parts())
        return [self._of_layer(place, parts) for place in layers]

    @staticmethod
    def _of_layer(place: str, parts: Mapping[str, Any]) -> float:
        block, _, index = place.rpartition(".")
        found = parts.get(block or place, parts.get(place.partition(".")[0], 0.0))
        numbers = _listed(found)
        return float(numbers[int(index) if len(numbers) > 1 else 0])


def _listed(numbers: Any) -> Sequence[float]:
    return numbers if isinstance(numbers, list) else [numbers]


def _numbers(name: str, place: str, value: Any) -> Any:
    """A number of a `place`, or a list of them. Whole numbers stay as they are, because metadata show them."""
    if not isinstance(value, (list, tuple)):
        return _number(name, place, value)
    if not value or any(isinstance(one, (list, tuple)) for one in value):
        raise refused(name, f"has {brief(value)} for {brief(place)}", _FITS)
    return [_number(name, place, one) for one in value]


def _number(name: str, place: str, value: Any) -> float:
    try:
        return real_or_int(name, value, -_MOST, _MOST)
    except RequestError as error:
        raise refused(name, f"has {brief(value)} for {brief(place)}", str(error.fits)) from None


def read_scales(text: str) -> tuple[Any, ...]:
    """The scales in a text: numbers with commas, or JSON with dicts.

    Raises:
        RequestError: the JSON has a key twice.
        ValueError: the text is something else.
    """
    if not text.lstrip().startswith(("{", "[")):
        return tuple(float(part) for part in text.split(","))
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(text) from None
    scales = tuple(found) if isinstance(found, list) else (found,)
    if not all(isinstance(one, (int, float, dict)) for one in scales):
        raise ValueError(text)
    return scales


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated keys. Raises `RequestError`."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise refused("ip_adapter_scale", f"has {brief(key)} twice", "each block once")
        found[key] = value
    return found


def write_scales(scales: Sequence[Any]) -> str:
    """The text of scales, which `read_scales` reads."""
    if not any(isinstance(one, dict) for one in scales):
        return ",".join(map(str, scales))
    return json.dumps(scales[0] if len(scales) == 1 else list(scales))
