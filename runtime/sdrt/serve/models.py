"""The models that a worker has open, the least recently used of which it lets go of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdrt.benchmark.memory import own_bytes
from sdrt.common.notices import Notify
from sdrt.model_folder.folder import expand
from sdrt.serve.served_model import ServedModel

if TYPE_CHECKING:
    from sdrt.pipeline import StableDiffusionPipeline

__all__ = ["Models", "opened_model"]


class Models:
    """Pipelines by their models' names. One is opened when it is asked for.

    Args:
        served: the models.
        options: arguments of `from_pretrained` for all of them.
        max_memory: when the process takes more bytes than this, models other than the newest are closed.
        notify: receives what the pipelines say.
    """

    def __init__(
        self,
        served: Mapping[str, ServedModel],
        options: Mapping[str, Any],
        max_memory: int | None,
        notify: Notify,
    ) -> None:
        self._served, self._options, self._max_memory, self._notify = served, options, max_memory, notify
        self._open: OrderedDict[str, StableDiffusionPipeline] = OrderedDict()

    def get(self, name: str) -> StableDiffusionPipeline:
        """The pipeline of a model.

        Raises:
            ModelError, ProviderError, RequestError: it cannot be opened.
        """
        if name not in self._open:
            model = self._served[name]
            self._close_until(room=_bytes_of(model.source), keep=0)
            self._open[name] = opened_model(model, self._options, self._notify)
        self._open.move_to_end(name)
        return self._open[name]

    def trim(self) -> tuple[str, ...]:
        """Close models other than the newest while the process takes more memory than allowed.

        Returns the names of the open models, the least recently used first.
        """
        self._close_until(room=0, keep=1)
        return tuple(self._open)

    def _close_until(self, *, room: int, keep: int) -> None:
        """Close the least recently used models until `room` bytes are free below the limit, or only `keep` are open."""
        while len(self._open) > keep and self._lacks(room):
            _, pipeline = self._open.popitem(last=False)
            pipeline.close()

    def _lacks(self, room: int) -> bool:
        taken = own_bytes("self")
        return self._max_memory is not None and taken is not None and taken + room > self._max_memory


def opened_model(model: ServedModel, options: Mapping[str, Any], notify: Notify) -> StableDiffusionPipeline:
    """Open a model.

    Args:
        model: the model.
        options: arguments of `from_pretrained`, which the model's own override.
        notify: receives what the pipeline says.

    Raises:
        ModelError, ProviderError, RequestError: it cannot be opened.
    """
    from sdrt.pipeline import StableDiffusionPipeline

    made = StableDiffusionPipeline.from_pretrained(
        model.source, notify=notify, **{**options, **model.options}
    )
    for file in model.embeddings:
        made.load_textual_inversion(file)
    return made


def _bytes_of(source: str) -> int:
    """The bytes of a model's files. 0 for one that is not on this machine."""
    place = expand(source)
    try:
        files = [one for one in place.rglob("*") if one.is_file()] if place.is_dir() else [place]
        return sum(one.stat().st_size for one in files)
    except OSError:
        return 0
