"""The configs that the user gives with a single file, and the errors about configs that do not fit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.errors import ModelError
from sdrt.model_folder.manifest import read_json
from sdrt_export.checkpoints.defaults import completed

__all__ = ["GivenConfigs"]

_REMEDY = "give the configs of the same model, or leave them out"


@dataclass(frozen=True)
class GivenConfigs:
    """The folder in diffusers' layout whose configs replace those derived from the tensors. None if none is given."""

    folder: Path | None = None

    def config(self, part: str, class_name: str) -> dict[str, Any] | None:
        """The complete config of a part of diffusers' or transformers' class `class_name`. None if there is none."""
        config = self.read(part, "config.json")
        if config is None:
            return None
        # Keep the class that the config names, so that a wrong one is refused later.
        named = {key: config[key] for key in ("_class_name",) if key in config}
        return completed(class_name, config) | named

    def read(self, part: str, name: str) -> dict[str, Any] | None:
        """The JSON file `name` of a part. None if there is none."""
        path = None if self.folder is None else self.folder / part / name
        return read_json(path, part) if path is not None and path.is_file() else None

    def has(self, part: str) -> bool:
        """Whether a config of this part was given."""
        return self.folder is not None and (self.folder / part / "config.json").is_file()

    @contextmanager
    def errors_of(self, part: str) -> Iterator[None]:
        """Within this block, errors about the part name the given config, if it has one."""
        try:
            yield
        except ModelError as error:
            if error.component != part or not self.has(part):
                raise
            raise self._error(error) from error

    def _error(self, error: ModelError) -> ModelError:
        text, facts = str(error), vars(error) | {"argument": "config"}
        if "config.json" not in text or (error.path is not None and error.path.suffix == ".json"):
            # The remedy of this error is for a damaged download or export. Replace it.
            problem = text.removesuffix(error.fits or "").removesuffix(": expected ").removesuffix(": ")
            text, facts = f"{problem}: {_REMEDY}", facts | {"fits": _REMEDY}
        return type(error)(f"config {self.folder} does not fit: {text}", **facts)
