"""The adapters that calls name: files, and A1111's tags in prompts."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from sdrt.adapters.adaptation import Weighted
from sdrt.adapters.change import Adapter, Shape
from sdrt.adapters.lora.reader import listed, open_adapter
from sdrt.adapters.lora_folder import LoraFolder
from sdrt.common.messages import brief
from sdrt.common.notices import Notices
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.model import Model
from sdrt.request.loras import LoraFile, lora_tags
from sdrt.request.request import Request
from sdrt.run.lora_sources import file_of, name_of

__all__ = ["CallAdapters"]

_MOST_FILES = 16
_Key = tuple[Path, int, int]


class CallAdapters:
    """Opens adapters for one model, and keeps the last ones. Safe to use from several threads.

    Args:
        model: the model.
        notices: receives messages for the user.
        refines: the model is a refiner. It runs without an adapter that does not fit it, with a notice.
    """

    def __init__(self, model: Model, notices: Notices, *, refines: bool = False) -> None:
        self.model, self._notices, self._refines = model, notices, refines
        self._shapes: dict[str, Mapping[str, Shape]] = {}
        self._files: OrderedDict[_Key, Adapter | None] = OrderedDict()
        self._found: dict[Path, Path] = {}
        self._lock = threading.RLock()

    def of(self, request: Request) -> Iterator[Weighted]:
        """The adapters that a call names, with their weights, in order.

        Raises:
            RequestError, ModelError: a file is not found, or is none for this model.
        """
        for one in request.lora or ():
            yield from self._weighted(one, name_of(one.path))
        if request.lora_dir is not None:
            folder = LoraFolder(request.lora_dir)
            for tag in lora_tags(request):
                file = LoraFile(folder.find(tag.name), tag.text_encoder_multiplier, tag.unet_multiplier)
                seconds = dict.fromkeys(self.text_encoders[1:], tag.second_text_encoder_multiplier)
                for part in self._weighted(file, tag.name):
                    yield replace(part, weights={**part.weights, **seconds})

    def open(self, path: Path, name: str) -> Adapter:
        """Open a file, and tell what it has that the model has not.

        Raises:
            ModelError: it is damaged, or none for this model.
        """
        if not self._shapes:
            self._shapes = {one: self.model.parameters(one) for one in self.components}
        adapter = open_adapter(path, family=self.model.family, shapes=self._shapes, name=name)
        if left := list(adapter.left_over):
            self._notices.warn(f"{path}: {len(left)} keys match nothing in {self.model.name}: {listed(left)}")
        for note in adapter.notes:
            self._notices.inform(note)
        return adapter

    @property
    def components(self) -> tuple[str, ...]:
        """The components that adapters can change."""
        names = (self.model.family.denoiser.component, *self.text_encoders)
        return tuple(name for name in names if self.model.has(name))

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The text encoders of the model's family."""
        return tuple(spec.component for spec in self.model.family.text_encoders)

    def _weighted(self, file: LoraFile, name: str) -> Iterator[Weighted]:
        with self._lock:
            adapter = self._known(file.path, name)
        if adapter is not None:
            texts = self.text_encoders
            weights = {one: file.text_encoder if one in texts else file.unet for one in self.components}
            yield Weighted(adapter=adapter, weights=weights, called=name)

    def _known(self, path: Path, name: str) -> Adapter | None:
        """The adapter in a file, which is opened again only if the file changed."""
        # Path's own is_file() raises an error for names that are too long.
        if not os.path.isfile(path):  # noqa: PTH113
            # Once, because the hub is asked for its newest file.
            path = self._found.get(path) or self._found.setdefault(path, file_of(path))
        try:
            state = path.stat()
        except OSError:
            raise _no_file(path) from None
        key = (path.resolve(), state.st_size, state.st_mtime_ns)
        if key not in self._files:
            self._files[key] = self._fitting(path, name)
        self._files.move_to_end(key)
        while len(self._files) > _MOST_FILES:
            self._files.popitem(last=False)
        return self._files[key]

    def _fitting(self, path: Path, name: str) -> Adapter | None:
        try:
            return self.open(path, name)
        except UnsupportedModelError as error:
            if not self._refines:
                raise
            self._notices.warn(f"refiner {self.model.name} runs without the LoRA {brief(name)}: {error}")
            return None


def _no_file(path: Path) -> ModelNotFoundError:
    return ModelNotFoundError.expected(
        f"there is no LoRA file {path}", "the path of a .safetensors file", argument="lora", path=path
    )
