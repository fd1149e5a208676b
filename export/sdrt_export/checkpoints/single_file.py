"""A single-file checkpoint, as A1111 and ComfyUI use it: detected, checked, and read by diffusers' names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrt.common.file_kind import check_checkpoint_file
from sdrt.common.messages import naming, wrong_key
from sdrt.common.notices import Notices, Notify
from sdrt.errors import UnsupportedModelError
from sdrt.families import Family, family_of
from sdrt.families.capabilities import whole
from sdrt.families.few_steps import few_steps_scheduler
from sdrt_export.checkpoints.clip_vocabulary import VOCABULARY, clip_tokenizer
from sdrt_export.checkpoints.config_errors import naming_config
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.derived.shapes import CONFIG_REMEDY
from sdrt_export.checkpoints.derived.unet import derived_unet
from sdrt_export.checkpoints.given_configs import GivenConfigs
from sdrt_export.checkpoints.kinds import Kind, TextPart, kind_of_unet
from sdrt_export.checkpoints.left_over import told_left_over
from sdrt_export.checkpoints.parts import Config, Part, Section, text_part, unet_part, vae_part
from sdrt_export.checkpoints.prediction import check_prediction, predicted, scheduler_config
from sdrt_export.checkpoints.separate import open_text_encoders, open_vae_file
from sdrt_export.tensors.lazy import MappedFile, Tensors

__all__ = ["SingleFile", "open_single_file"]

_UNET, _VAE = "unet", "vae"
# Files of a U-Net alone have no prefix.
_UNET_PREFIXES, _VAE_PREFIXES = ("model.diffusion_model.", ""), ("first_stage_model.", "vae.")
_RESOLUTION = re.compile(r"(\d{2,4})x(\d{2,4})")


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """A single file, and the files that replace its parts. See `Checkpoint`.

    Attributes:
        path: the file.
        name: its name, or where it is on the hub; `revision` is the hub's commit.
        kind: the kind of checkpoint.
        parts: its components, by their folders in diffusers' layout.
        scheduler: the content of `scheduler_config.json`.
        configs: the configs that were given.
        left_over: the tensors that no part takes, each with the reason, or "" if none is known.
        title: the title in its metadata.
    """

    path: Path
    name: str
    revision: str | None
    kind: Kind
    parts: Mapping[str, Part]
    scheduler: Mapping[str, Any]
    configs: GivenConfigs = GivenConfigs()  # noqa: RUF009 - frozen
    left_over: Mapping[str, str] = field(default_factory=dict)
    title: str = ""

    @property
    def family(self) -> Family:
        """The family of models. Raises `UnsupportedModelError` if sdrt cannot run it."""
        family = family_of(self.index())
        if family is None:
            raise UnsupportedModelError(
                f"{self.path} is a checkpoint of {self.kind.title}, which is not supported", path=self.path
            )
        return family

    def config(self, part: str) -> Config:
        """See `Checkpoint`."""
        return completed(self.index()[part][1], self.parts[part].config)

    def tensors(self, part: str) -> Tensors:
        """See `Checkpoint`."""
        return self.parts[part].tensors

    def place(self, part: str) -> str:
        """See `Checkpoint`."""
        return self.parts[part].place

    def errors_of(self, part: str) -> AbstractContextManager[None]:
        """See `Checkpoint`. A part in a folder of its own has its own config."""
        place = Path(self.parts[part].place)
        return naming_config(place, part) if place.is_dir() else self.configs.errors_of(part)

    def scheduler_config(self) -> Config:
        """See `Checkpoint`."""
        return dict(self.scheduler)

    def low_res_scheduler_config(self) -> Config | None:
        """See `Checkpoint`."""
        config = self.kind.low_res_scheduler
        return None if config is None else dict(config)

    def checker(self) -> None:
        """None, because such files hold no safety checker."""

    def index(self) -> Config:
        """See `Checkpoint`."""
        classes: Config = {_UNET: ["diffusers", "UNet2DConditionModel"], _VAE: ["diffusers", "AutoencoderKL"]}
        for spec in self.kind.text:
            classes[spec.part] = ["transformers", spec.class_name]
            classes[spec.tokenizer] = ["transformers", "CLIPTokenizer"]
        return {"_class_name": self.kind.pipeline, **classes, **self.kind.index}

    def names(self) -> tuple[str, ...]:
        """See `Checkpoint`."""
        return (self.name, self.title)

    def tokenizer_folders(self) -> dict[str, Path]:
        """See `Checkpoint`. Without given ones, they are CLIP's, which files do not hold."""
        return {spec.tokenizer: self._tokenizer(spec) for spec in self.kind.text}

    def _tokenizer(self, spec: TextPart) -> Path:
        folder = self.configs.folder
        if folder is not None and (folder / spec.tokenizer).is_dir():
            return folder / spec.tokenizer
        size = self.parts[spec.part].config["vocab_size"]
        if size < VOCABULARY:
            raise UnsupportedModelError.expected(
                f"{self.path}: the {spec.part} knows {size} words",
                f"CLIP's {VOCABULARY}; for others, {CONFIG_REMEDY}, which has the tokenizer too",
                path=self.path,
                component=spec.part,
            )
        return clip_tokenizer(spec.pad)

    def size(self) -> int:
        """See `Checkpoint`."""
        sources = [source for part in self.parts.values() for source in part.tensors.sources.values()]
        return 4 * sum(math.prod(source.shape) for source in sources)


def open_single_file(
    path: Path,
    *,
    vae: Path | None = None,
    text_encoders: Sequence[Path] = (),
    prediction_type: str | None = None,
    config: Path | None = None,
    name: str | None = None,
    revision: str | None = None,
    notify: Notify | None = None,
) -> SingleFile:
    """Open a single-file checkpoint. Only its header is read.

    Args:
        path: a safetensors file of Stable Diffusion 1, 2, the x4 upscaler, SDXL, or its refiner.
        vae: a file or folder of a VAE, which replaces the file's.
        text_encoders: files of text encoders, which replace the file's.
        prediction_type: "epsilon" or "v_prediction", what the U-Net predicts, for files that do not say it.
        config: a folder in diffusers' layout, whose configs replace those derived from the tensors.
        name, revision: where the file comes from, for the manifest.
        notify: receives messages for the user.

    Raises:
        RequestError: an argument is wrong.
        ModelNotFoundError: there is no such file, or it holds something else, such as a LoRA.
        UnsupportedModelError: the file is damaged, of another family, or lacks a part.
    """
    check_prediction(prediction_type)
    file = MappedFile(check_checkpoint_file(path))
    unet = _unet_section(file)
    kind = kind_of_unet(unet.shapes, file.header.tensors)
    sections = _sections(file, kind, unet)
    configs = _configs(config, kind)
    texts = _texts(file, kind, sections, text_encoders, configs)
    denoiser = _denoiser(kind, unet, texts, configs)
    distilled = few_steps_scheduler(file.header.path.name, _title(file))
    told = prediction_type or distilled.get("prediction_type")
    prediction = predicted(kind, file.header, denoiser.config["in_channels"], told)
    _set_size(denoiser.config, kind, file, is_v=prediction == "v_prediction", given=configs.has(_UNET))
    parts = {**texts, _UNET: denoiser, _VAE: _vae(file, kind, sections, denoiser.config, vae, configs)}
    left_over = told_left_over(file, sections, parts, Notices(notify))
    return SingleFile(
        path=path,
        name=name or path.name,
        revision=revision,
        kind=kind,
        parts=parts,
        scheduler=_scheduler(file, kind, prediction, configs, distilled),
        configs=configs,
        left_over=left_over,
        title=_title(file),
    )


def _configs(folder: Path | None, kind: Kind) -> GivenConfigs:
    """The configs that the user gave. Raises `RequestError` if they are not for this kind of checkpoint."""
    configs = GivenConfigs(folder)
    configs.check_use(
        [_UNET, _VAE, *(spec.part for spec in kind.text)], [spec.tokenizer for spec in kind.text]
    )
    return configs


def _title(file: MappedFile) -> str:
    return str(file.header.metadata.get("modelspec.title", ""))


def _scheduler(
    file: MappedFile, kind: Kind, prediction: str, configs: GivenConfigs, distilled: Mapping[str, Any]
) -> dict[str, Any]:
    """The scheduler's config: the given one, else that of the kind with the keys of a distilled model."""
    if given := configs.read("scheduler", "scheduler_config.json"):
        return given
    return {**scheduler_config(kind, file.header, prediction), **distilled, "prediction_type": prediction}


def _unet_section(file: MappedFile) -> Section:
    unet = Section.of(file, _UNET, _UNET_PREFIXES)
    assert unet is not None  # the empty prefix fits any file
    return unet


def _sections(file: MappedFile, kind: Kind, unet: Section) -> dict[str, Section]:
    """The file's sections, by part."""
    found = {_UNET: unet, _VAE: Section.of(file, _VAE, _VAE_PREFIXES)}
    found |= {spec.part: Section.of(file, spec.part, spec.prefixes) for spec in kind.text}
    return {part: section for part, section in found.items() if section is not None}


def _texts(
    file: MappedFile,
    kind: Kind,
    sections: Mapping[str, Section],
    given: Sequence[Path],
    configs: GivenConfigs,
) -> dict[str, Part]:
    with naming("text_encoders"):
        own = open_text_encoders(given, kind, configs)
    for spec in kind.text:
        if spec.part in own:
            continue
        if spec.part not in sections:
            raise _lacks(file, kind, spec.part, "--text-encoder FILE")
        with configs.errors_of(spec.part):
            own[spec.part] = text_part(sections[spec.part], configs.config(spec.part, spec.class_name), spec)
    return {spec.part: own[spec.part] for spec in kind.text}


def _lacks(file: MappedFile, kind: Kind, part: str, remedy: str) -> UnsupportedModelError:
    path = file.header.path
    return UnsupportedModelError.advised(
        f"{path} is a checkpoint of {kind.title}, but has no {part}",
        f"give one with {remedy}",
        path=path,
        component=part,
    )


def _denoiser(kind: Kind, unet: Section, texts: Mapping[str, Part], configs: GivenConfigs) -> Part:
    with configs.errors_of(_UNET):
        _check_sizes(configs.config(_UNET, "UNet2DConditionModel"))
        return unet_part(
            unet, configs.config(_UNET, "UNet2DConditionModel") or _unet_config(kind, unet, texts)
        )


def _check_sizes(given: Config | None) -> None:
    """Check what the U-Net's graph does not need and the runtime reads, in a given config. Raises `IntegrityError`."""
    if given is None:
        return
    for key in ("in_channels", "out_channels"):
        whole(given, key, _UNET)
    size = given.get("sample_size")
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    for side in sides if size is not None else ():
        if type(side) is not int or side < 1:
            raise wrong_key(
                "unet/config.json", "sample_size", size, "a whole number, or two", component=_UNET
            )


def _unet_config(kind: Kind, unet: Section, texts: Mapping[str, Part]) -> Config:
    projected = [texts[spec.part].config["projection_dim"] for spec in kind.text if spec.projected]
    return derived_unet(unet.shapes, pooled=projected[0] if projected else None, sizes=kind.sizes)


def _set_size(unet: Config, kind: Kind, file: MappedFile, *, is_v: bool, given: bool) -> None:
    """Set the default size in latents: the one that the file names, else the one that its kind was trained with."""
    if given and unet.get("sample_size") is not None:
        return
    unet["sample_size"] = (kind.v_sample_size if is_v else None) or kind.sample_size
    if found := _RESOLUTION.fullmatch(str(file.header.metadata.get("modelspec.resolution", ""))):
        width, height = (int(side) // 8 for side in found.groups())
        unet["sample_size"] = width if width == height else [height, width]


def _vae(
    file: MappedFile,
    kind: Kind,
    sections: Mapping[str, Section],
    unet: Config,
    given: Path | None,
    configs: GivenConfigs,
) -> Part:
    own = {"scaling_factor": kind.scaling_factor, "sample_size": 8 * kind.sample_size}
    config = configs.config(_VAE, "AutoencoderKL")
    if given is not None:
        with naming("vae"), configs.errors_of(_VAE):
            part = open_vae_file(given, config=config, given=own)
            part.check_latents(unet, str(file.header.path))
        return part
    if _VAE not in sections:
        raise _lacks(file, kind, _VAE, "--vae FILE")
    with configs.errors_of(_VAE):
        part = vae_part(sections[_VAE], config, given=own)
        part.check_latents(unet, str(file.header.path))
    return part
