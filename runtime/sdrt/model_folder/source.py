"""A torch checkpoint that the user named, and what replaces its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sdrt.common.messages import wrong_value
from sdrt.model_folder.folder import exists, expand, tail

__all__ = ["PREDICTIONS", "Beside", "Source"]

PREDICTIONS = ("epsilon", "v_prediction")
"""What a U-Net predicts."""
_EXAMPLES = {
    "vae": "vae.safetensors",
    "config": "a folder in diffusers' layout",
    "text_encoders": "clip_l.safetensors",
    "controlnet": "control_v11p_sd15_canny.safetensors",
    "ip_adapter": "ip-adapter_sd15.safetensors",
    "image_encoder": "models/image_encoder",
}
_LISTS = {
    "text_encoders": "a list of .safetensors files",
    "controlnet": "a list of ControlNets: .safetensors files, folders or hub ids",
    "ip_adapter": "a list of IP-Adapters: .safetensors files",
}


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the user gives beside a checkpoint: what replaces its parts, and what its files do not say.

    Attributes:
        vae: a file, folder or hub id of a VAE.
        text_encoders: files of text encoders. For single-file checkpoints only, like those below.
        config: a folder or hub id of a model in diffusers' layout, for its configs.
        prediction_type: what the U-Net predicts, "epsilon" or "v_prediction".
        controlnet: files, folders or hub ids of ControlNets.
        ip_adapter: files of IP-Adapters, or where they are on the hub.
        image_encoder: a file or folder with CLIP's vision encoder, for IP-Adapters.

    Raises:
        RequestError: a value is of a wrong type, or is empty.
    """

    vae: str | Path | None = None
    text_encoders: Sequence[str | Path] = ()
    config: str | Path | None = None
    prediction_type: str | None = None
    controlnet: Sequence[str | Path] = ()
    ip_adapter: Sequence[str | Path] = ()
    image_encoder: str | Path | None = None

    def __post_init__(self) -> None:
        for argument, fits in _LISTS.items():
            given = getattr(self, argument)
            listed = [given] if isinstance(given, (str, Path)) else given
            if not isinstance(listed, (list, tuple)):
                raise wrong_value(argument, listed, fits)
            object.__setattr__(self, argument, tuple(listed))
            for one in listed:
                _check_place(argument, one, optional=False)
        _check_place("vae", self.vae)
        _check_place("config", self.config)
        _check_place("image_encoder", self.image_encoder)
        if self.prediction_type is not None and self.prediction_type not in PREDICTIONS:
            raise wrong_value("prediction_type", self.prediction_type, " or ".join(PREDICTIONS))

    def given(self) -> dict[str, Any]:
        """The values that are given, by name."""
        return {row.name: value for row in fields(self) if (value := getattr(self, row.name))}

    def paths(self) -> list[Path]:
        """The files and folders among the given values."""
        places = (
            *(self.vae, *self.text_encoders, self.config, *self.controlnet),
            *(*self.ip_adapter, self.image_encoder),
        )
        given = [one for one in places if one is not None]
        return [path for one in given if exists(path := expand(one))]


def _check_place(argument: str, value: object, *, optional: bool = True) -> None:
    """Check a path or hub id. An empty one, such as from an unset variable, would otherwise be ignored silently."""
    if value is None and optional:
        return
    if not isinstance(value, (str, Path)) or value == "" or "\0" in str(value):
        raise wrong_value(argument, value, f"a path or hub id, such as {_EXAMPLES[argument]}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A torch checkpoint: a folder, a file, or a model on the hub.

    Attributes:
        name: the folder, file or hub id that the user gave.
        configs: the file, or a folder with the checkpoint's configs. For a hub model it may lack the weights.
        commit: the commit of a hub model; None for a folder or file.
        beside: what was given beside it.
        revision, token, cache_dir: the options that the user gave for the hub.
        safety_checker: whether its safety checker is wanted.
    """

    name: str
    configs: Path
    commit: str | None = None
    beside: Beside = Beside()
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    safety_checker: bool = True

    @property
    def model_name(self) -> str:
        """The name of the model: of the folder or hub id, or of the file without its suffix, as A1111 has it."""
        name = tail(self.name)
        return Path(name).stem if self.configs.is_file() else name
