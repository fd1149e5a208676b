"""The programs whose metadata are read, in the order in which their forms are looked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sdrt.images.programs.comfyui.reader import read_comfyui
from sdrt.images.programs.fooocus import read_fooocus
from sdrt.images.programs.invokeai import read_invokeai
from sdrt.images.programs.made import Made, Size, load_object
from sdrt.images.programs.novelai import read_novelai
from sdrt.images.programs.others import read_civitai, read_draw_things, read_easy_diffusion
from sdrt.images.programs.swarmui import read_swarmui

__all__ = ["GRAPHS", "PROGRAMS", "Program", "a1111_text", "program_of", "recognised", "unpacked"]

Reader = Callable[[Mapping[str, str], Size], "Made | None"]


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program, and the reader of its metadata: from the texts of a file, by name, and the image's size."""

    name: str
    read: Reader


PROGRAMS = (
    Program(name="SwarmUI", read=read_swarmui),
    Program(name="InvokeAI", read=read_invokeai),
    # Before NovelAI, whose fields have the same names.
    Program(name="Draw Things", read=read_draw_things),
    Program(name="NovelAI", read=read_novelai),
    Program(name="Fooocus", read=read_fooocus),
    Program(name="Easy Diffusion", read=read_easy_diffusion),
)
"""Programs with forms of their own, which are looked for before A1111's text."""

GRAPHS = (
    Program(name="Civitai", read=read_civitai),
    Program(name="ComfyUI", read=read_comfyui),
)
"""Programs with graphs. Nodes that save images often write A1111's text too, which is taken first."""

_CONTAINERS = ("parameters", "UserComment", "comment", "ImageDescription", "XPComment")
_INNER = frozenset(
    {
        *("prompt", "workflow", "Comment", "extraMetadata", "invokeai_metadata", "sd-metadata"),
        *("generation_data", "parameters"),
    }
)
_A1111 = ("parameters", "UserComment", "comment", "XPComment", "ImageDescription", "description")
_VERSIONS = (
    (re.compile(r"sdrt "), "sdrt"),
    (re.compile(r"f\d|neo|classic"), "Forge"),
    (re.compile(r"v\d|1\.\d"), "AUTOMATIC1111"),
)


def unpacked(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts, with those that stand together in one JSON object, as converters write them into EXIF."""
    found = dict(texts)
    for place in _CONTAINERS:
        values = load_object(texts.get(place))
        if any(isinstance(one, dict) and "class_type" in one for one in values.values()):
            found.setdefault("prompt", texts[place])
        elif _INNER & values.keys() and not _is_settings(values):
            inner = {
                name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()
            }
            found = {name: text for name, text in found.items() if name != place} | inner
    return found


def _is_settings(values: Mapping[str, object]) -> bool:
    """Whether an object has the prompt among its own settings, so that it is no container."""
    return isinstance(values.get("prompt"), str) and not str(values["prompt"]).lstrip().startswith("{")


def recognised(programs: tuple[Program, ...], texts: Mapping[str, str], size: Size) -> Made | None:
    """What the first program says that knows the form of these texts, or None."""
    found = (program.read(texts, size) for program in programs)
    return next((made for made in found if made is not None), None)


def a1111_text(texts: Mapping[str, str]) -> str:
    """The text that may be A1111's, or an empty one."""
    found = (texts.get(place, "") for place in _A1111)
    return next((text for text in found if text.strip()), "")


def program_of(settings: Mapping[str, str], texts: Mapping[str, str]) -> str:
    """The program that wrote A1111's text, or an empty name if it does not say so."""
    if settings.get("App"):
        return settings["App"]
    version = settings.get("Version", "")
    if texts.get("fooocus_scheme") or version.startswith("Fooocus"):
        return "Fooocus"
    known = (name for pattern, name in _VERSIONS if pattern.match(version))
    name = next(known, re.split(r" v?\d", version)[0] if version[:1].isalpha() else "")
    return name or ("Civitai" if "Civitai resources" in settings else "")
