"""`--from`: read options from the metadata of an image, so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from sdrt.cli.generate.from_loras import LORA_HASHES, prompt_for
from sdrt.cli.generate.streams import image_or_stdin
from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.images.metadata import ImageMetadata, read_metadata
from sdrt.model_folder.embedded import DEFAULT_MODEL, embedded_names
from sdrt.request.control_texts import CONTROL_LABELS
from sdrt.request.labels import settings_values
from sdrt.request.setting import Setting
from sdrt.request.table import TABLE, WILDCARD_LABELS
from sdrt.request.translated import Difference, Translation
from sdrt.request.translation import translate

__all__ = ["options_of"]

# Options that are not settings. The metadata has them under the same name.
_OTHER_OPTIONS = ("model", "vae_tiling")
_ADAPTER, _MASKS = "IP-Adapter", "IP-Adapter masks"
# Labels that state facts. They belong to no option, so --from does not read them.
_NOT_READ = frozenset(
    {
        "Empty negative prompt",
        "Batch size",
        "RNG",
        "Embeddings",
        LORA_HASHES,
        "Scheduler config",
        "Version",
        _ADAPTER,
        _MASKS,
    }
)
# Settings that every image has. A notice names those that the metadata leave out.
_ALWAYS = {
    "num_inference_steps": "steps",
    "scheduler": "sampler",
    "guidance_scale": "CFG scale",
    "seed": "seed",
    "model": "model",
}
_OF_EACH = {"controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end"}
"""Settings of which metadata have a value for each ControlNet."""
_MOST_SETTINGS = 1000
_MOST_SHOWN = 12
_LORAS = "give the folder of its LoRAs with --lora-dir"
_FILES = "give each with --lora FILE:WEIGHT, because the prompt is plain"
_REMEDY = "--approximate makes it as closely as possible"


def options_of(
    name: str,
    given: Set[str],
    table: Sequence[Setting] = TABLE,
    *,
    approximate: bool = False,
    lora_dir: str | None = None,
    control_images: int = 0,
) -> dict[str, Any]:
    """Read the options of an image's metadata that are not in `given`, the names of the options that the user gave.

    Options have the names of click's parameters. `notices` say what differs from the image. The limits are those of
    options: nothing in a file allows a larger image.

    Args:
        name: the file.
        given: names of click's parameters.
        table: the settings.
        approximate: whether to go on if the image that sdrt makes differs, instead of raising an error.
        lora_dir: the folder of the LoRAs.
        control_images: how many control images the user gave.

    Raises:
        RequestError: the file has no metadata, the metadata contains a setting that sdrt does not have, or the image
            cannot be made from its metadata alone.
    """
    metadata = _read(name)
    found = translate(metadata.settings, table, (metadata.prompt, metadata.negative_prompt))
    _check_inputs(name, found, given, table, approximate=approximate)
    _check_number_of_controls(name, found, given, control_images)
    prompt = prompt_for(metadata, found, given, lora_dir)
    _note_noise(found)
    differences = [one for one in found.differences if one.option not in given]
    if any(not one.minor for one in differences) and not approximate:
        remedy = _remedy(differences, has_folder=lora_dir is not None)
        raise _unusable(name, _in_words(differences, metadata.program), remedy)
    options: dict[str, Any] = {"negative_prompt": metadata.negative_prompt or _unsaid_negative(found.texts)}
    if "prompts_file" not in given:
        options["prompts"] = (prompt,)
    # A seed that cannot be read does not matter beside one that is given.
    unread = {*_NOT_READ, "Seed"} if "seed" in given else _NOT_READ
    options |= _options(name, {one: found.texts[one] for one in found.texts if one not in unread}, table)
    if "spacing" in given and "scheduler" in options:
        options["scheduler"] = _without_spacing(options["scheduler"])
    dropped = _replaced(given)
    options = {option: value for option, value in options.items() if option not in dropped}
    # These texts are complete: their braces are no wildcards.
    literal = {"prompts" if text == "prompt" else text: text for text in WILDCARD_LABELS}
    options["literal"] = frozenset(text for option, text in literal.items() if option in options)
    said = {*options, *given, *(one.option for one in differences if one.label == "Sampler")}
    notices = (_differ(name, differences), _unsaid(name, said))
    return options | {"notices": tuple(filter(None, notices))}


def _remedy(differences: Sequence[Difference], *, has_folder: bool) -> str:
    """What makes the image again in spite of `differences`. `has_folder`: the folder of LoRAs is given."""
    for one in differences:
        if one.label == LORA_HASHES and (one.option or not has_folder):
            return f"{_FILES if one.option else _LORAS}; {_REMEDY}"
    return _REMEDY


def _check_controls(name: str, found: Translation, given: Set[str], *, approximate: bool) -> None:
    """Raise `RequestError` if the image needs a control image that is not given. Without it, it is approximated."""
    if "control_image" in given or not any(label in found.texts for label in CONTROL_LABELS):
        return
    if not approximate:
        raise _unusable(
            name,
            f"the image was made with {_named(found.controlnets)}",
            f"give {'that one' if len(found.controlnets) < 2 else 'each'} with --controlnet, and its image with "
            "--control-image",
            "control_image",
        )
    found.differs("ControlNet", "", "control_image")
    for label in CONTROL_LABELS:
        found.texts.pop(label, None)


def _check_number_of_controls(name: str, found: Translation, given: Set[str], images: int) -> None:
    """Raise `RequestError` if the metadata have numbers for another number of ControlNets than the user gave."""
    count = len(found.controlnets)
    if images in (0, count) or count < 2 or given >= _OF_EACH:
        return
    raise _unusable(
        name,
        f"the image was made with {_named(found.controlnets)}, and {images} control image{'s' * (images != 1)} "
        f"{'is' if images == 1 else 'are'} given",
        "give each with --controlnet, and its image with --control-image",
        "control_image",
    )


def _named(controlnets: Sequence[str]) -> str:
    """The ControlNets by the names in the metadata, if these have them."""
    names = ", ".join(brief(name) for name in controlnets if name)
    return f"the ControlNet{'s' * (len(controlnets) > 1)} {names}" if names else "a ControlNet"


def _check_image_prompts(name: str, found: Translation, given: Set[str], *, approximate: bool) -> None:
    """Raise `RequestError` if the image needs an image prompt that is not given. Without it, it is approximated."""
    if _ADAPTER not in found.texts:
        return
    if "ip_adapter_image" in given:
        if _MASKS in found.texts and "ip_adapter_masks" not in given and not approximate:
            problem = "the image was made with a mask of its image prompt"
            raise _unusable(name, problem, "give the mask with --ip-mask", "ip_adapter_masks")
        return
    if not approximate:
        raise _unusable(
            name,
            f"the image was made with an image prompt and the IP-Adapter {brief(found.texts[_ADAPTER])}",
            "give that one with --ip-adapter, and the image with --ip-image",
            "ip_adapter_image",
        )
    found.differs(_ADAPTER, found.texts[_ADAPTER], "ip_adapter_image")
    for label in (_ADAPTER, _MASKS, "IP-Adapter scale"):
        found.texts.pop(label, None)


def _unsaid_negative(texts: Mapping[str, str]) -> str | None:
    """An empty negative prompt that was encoded, or none. Without the label, other programs have none."""
    return "" if texts.get("Empty negative prompt") == "True" else None


def _read(name: str) -> ImageMetadata:
    metadata = read_metadata(image_or_stdin("--from", name))
    facts: dict[str, Any] = {"argument": "--from", "path": Path(name)}
    if not metadata.text:
        raise RequestError.expected(
            f"--from {name} does not say how it was made",
            "an image that sdrt made without --no-metadata",
            **facts,
        )
    if (count := len(metadata.settings)) > _MOST_SETTINGS:
        raise RequestError.expected(
            f"--from {name} has {count} settings", f"at most {_MOST_SETTINGS}", **facts
        )
    return metadata


def _replaced(given: Set[str]) -> set[str]:
    """The options of the metadata that do not count beside the options in `given`."""
    dropped = set(given)
    if given & {"num_inference_steps", "spacing", "timesteps", "sigmas"}:
        # Each of these options decides which noise levels the steps visit, so it replaces those of the metadata.
        dropped |= {"timesteps", "sigmas"}
    if "scheduler" in given:
        dropped.add("spacing")
    return dropped


def _options(name: str, texts: Mapping[str, str], table: Sequence[Setting]) -> dict[str, Any]:
    try:
        values = settings_values(texts, table)
    except RequestError as error:
        raise RequestError(
            f"--from {name}: {error}", argument="--from", path=Path(name), fits=error.fits
        ) from None
    names = {*_OTHER_OPTIONS, *(row.name for row in table if row.option is not None)}
    options = {key: value for key, value in values.items() if key in names}
    if "size" in values and "outpaint" not in values:
        options["width"], options["height"] = values["size"]
    return options


def _without_spacing(scheduler: str) -> str:
    from sdrt.schedulers import split_name

    sampler, _ = split_name(scheduler)
    return scheduler if sampler is None else sampler.display_name


def _check_inputs(
    name: str, found: Translation, given: Set[str], table: Sequence[Setting], *, approximate: bool
) -> None:
    """Raise `RequestError` if the image needs a file that is not given. Without some files it can be approximated."""
    texts = found.texts
    model = texts.get("Model")
    if "model" not in given and model not in (None, *embedded_names()):
        raise _unusable(
            name, f"the image was made by the model {brief(model)}", "give the model with -m", "model"
        )
    _check_refiner(name, found, given, approximate=approximate)
    from_text = "Hires upscale" in texts
    if "image" not in given and not from_text and any(label in texts for label in _image_labels(table)):
        raise _unusable(name, "the image was made from another image", "give that one with -i", "image")
    if "mask_image" not in given and "Mask blur" in texts and "Outpaint" not in texts:
        raise _unusable(name, "the image was made with a mask", "give the mask with --mask", "mask_image")
    _check_controls(name, found, given, approximate=approximate)
    _check_image_prompts(name, found, given, approximate=approximate)
    for label, argument, spelling, file in (
        ("Embeddings", "embeddings", "--embedding", "files"),
        ("Scheduler config", "scheduler", "--scheduler", "file"),
    ):
        if label not in texts or argument in given:
            continue
        if not approximate:
            problem = f"the image was made with {brief(texts[label])}"
            raise _unusable(
                name,
                problem,
                f"give the {file} with {spelling}",
                spelling if argument == "embeddings" else argument,
            )
        found.differs(label, texts[label])


def _check_refiner(name: str, found: Translation, given: Set[str], *, approximate: bool) -> None:
    """Metadata name the refiner but never open it, unless it is an embedded model."""
    refiner = found.texts.get("Refiner")
    if refiner is None or "refiner" in given or refiner in embedded_names():
        return
    if not approximate:
        problem = f"the image was made with the refiner {brief(refiner)}"
        raise _unusable(name, problem, "give it with --refiner", "refiner")
    found.differs("Refiner", refiner)
    for label in ("Refiner", "Refiner switch at", "Refiner switch by sampling steps", "Hires refiner"):
        found.texts.pop(label, None)


def _note_noise(found: Translation) -> None:
    rng = found.texts.get("RNG")
    if rng != "CPU":
        found.differs("RNG", rng or "", "seed")


def _in_words(differences: Sequence[Difference], program: str) -> str:
    """What sdrt cannot do, as a sentence about the image that `program` made."""
    whose = f"of {brief(program)[1:-1]}" if program not in ("", "sdrt") else "of another program"
    labels = [one.label for one in differences if one.label not in ("RNG", LORA_HASHES) and not one.minor]
    parts = [f"was made with the LoRAs {brief(one.value)}" for one in differences if one.label == LORA_HASHES]
    if noise := [one for one in differences if one.label == "RNG"]:
        found = f"its RNG is {brief(noise[0].value)}" if noise[0].value else "it names no RNG"
        parts.append(f"was made with noise that sdrt cannot draw ({found}, expected CPU)")
    if len(labels) == 1:
        parts.append(f"has the setting {brief(labels[0])} {whose}")
    elif labels:
        shown = ", ".join(brief(label) for label in labels[:_MOST_SHOWN])
        more = f" and {len(labels) - _MOST_SHOWN} more" if len(labels) > _MOST_SHOWN else ""
        parts.append(f"has settings {whose}: {shown}{more}")
    return "the image " + ", and ".join(parts)


def _differ(name: str, differences: Sequence[Difference]) -> str:
    shown = ", ".join(_shown(one) for one in differences[:_MOST_SHOWN])
    more = len(differences) - _MOST_SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return f"--from {name}: made as closely as possible; these differ: {shown}{rest}" if differences else ""


def _unsaid(name: str, said: Set[str]) -> str:
    """A notice of the settings that the metadata leave out. Their defaults may differ from what was used."""
    unsaid = [label for option, label in _ALWAYS.items() if option not in said]
    model = f" (the model is {DEFAULT_MODEL})" if "model" in unsaid else ""
    return f"--from {name} does not say {', '.join(unsaid)}; sdrt uses its defaults{model}" if unsaid else ""


def _shown(one: Difference) -> str:
    if one.label == "RNG":
        return f"the noise (RNG {brief(one.value) if one.value else 'not named, so probably GPU'})"
    if one.minor:
        return one.label
    return f"{brief(one.label)} ({brief(one.value, 40)})"


def _image_labels(table: Sequence[Setting]) -> list[str]:
    """The labels that only images made from another image have."""
    return [row.label.name for row in table if row.label and row.only_with == ("image",)]


def _unusable(name: str, problem: str, remedy: str, argument: str = "--from") -> RequestError:
    """The error for an image that cannot be made from its metadata, unless `argument` is given otherwise."""
    return RequestError.advised(
        f"--from {name}: {problem}", remedy, joint="; ", argument=argument, path=Path(name)
    )
