"""Which components of a model are in memory: opened when they are needed, and fewer where memory ran out."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError
from sdrt.families.capabilities import whole
from sdrt.model_folder.embedded import embedded_path
from sdrt.model_folder.folder import ModelFolder
from sdrt.onnx.error_messages import out_of_memory
from sdrt.onnx.placement import tell_of_target
from sdrt.onnx.providers import SessionConfig
from sdrt.request.fitted import FittedRequest
from sdrt.text.textual_inversion import Inversion, Inversions

if TYPE_CHECKING:
    from sdrt.run.components import Components

__all__ = ["ComponentStore", "MakeComponents"]

MakeComponents = Callable[
    [ModelFolder, SessionConfig, Notices, "Inversions | None", "Counter[str]"], "Components"
]


class ComponentStore:
    """A model's components, in the sessions of one configuration at a time. Safe to use from several threads.

    A run that has begun keeps those that it began with, whatever `configure` and `close` do meanwhile. `make` makes
    them; calibration has some of its own.
    """

    def __init__(
        self,
        model: ModelFolder,
        config: SessionConfig,
        notices: Notices,
        *,
        verify: bool = True,
        make: MakeComponents | None = None,
    ) -> None:
        self.model, self.config, self._make = model, config, make
        self.float32_retries: Counter[str] = Counter()
        """How many runs of which component were made in float32, as float16 overflowed."""
        self.embeddings: tuple[str, ...] = ()
        """Names of the files that words were read from."""
        self._notices, self._verify = notices, verify
        self._components: Components | None = None
        self._inversions: Inversions | None = None
        self._outgrown = math.inf
        """Pixels of all pictures of a request for which memory ran out."""
        self._seen: set[tuple[int, int, int]] = set()
        self._told: set[str] = set()
        self._lock = threading.RLock()

    @property
    def opened(self) -> Components | None:
        """Those in memory."""
        return self._components

    def get(self) -> Components:
        """Those in memory, or all of them anew."""
        with self._lock:
            return self._components or self._open(low_vram=self._takes_less(0))

    def load(self) -> None:
        """Open all that text to image needs, now; from then on one at a time where there is no room for all at once."""
        took_less, components = self._takes_less(0), self.get()
        try:
            components.load()
            return
        except OutOfMemoryError as error:
            takes_less = self._take_less(
                0, error, "for all pictures: there is no room for all components at once"
            )
            # Another thread may have come to it meanwhile.
            if not takes_less and took_less == self._takes_less(0):
                self.close()
                raise
        finally:
            if components is not self._components:
                # Let go of meanwhile, and what was opened since would stay.
                components.close()
        # Not above: the error's frames hold what has to be let go of first.
        self.get().load()

    def for_request(self, request: FittedRequest) -> Components:
        """Those that take less for a request for which memory ran out before."""
        with self._lock:
            low, found = self._takes_less(request.num_pixels), self._components
            return found if found is not None and found.low_vram == low else self._open(low_vram=low)

    def take_less(self, request: FittedRequest, error: OutOfMemoryError) -> bool:
        """Whether this request, and all from its size on, is tried with `low_vram`: once, and where that is allowed."""
        return self._take_less(request.num_pixels, error, "for this and all that is as large")

    def _takes_less(self, pixels: int) -> bool:
        low = self.config.low_vram
        return pixels >= self._outgrown if low is None else low

    def _take_less(self, pixels: int, error: OutOfMemoryError, where: str) -> bool:
        with self._lock:
            if self.config.low_vram is not None or self._takes_less(pixels):
                return False
            self._outgrown = pixels
            self._let_go()
        reason = out_of_memory(error.component, error.provider)
        self._notices.warn(f"{reason}. Trying again with low_vram, which is slower, {where}")
        return True

    def is_first_at(self, request: FittedRequest) -> bool:
        """Whether these sessions were not asked for this size before; from now on they were."""
        size = request.width, request.height, request.num_images
        with self._lock:
            known = size in self._seen
            self._seen.add(size)
            return not known

    def add_words(self, words: Sequence[Inversion]) -> None:
        """Read these words of textual inversion from now on. Raises `UnsupportedModelError` if the model cannot."""
        with self._lock:
            components = self.get()
            name = self.model.family.text_encoders[0].component
            vocabulary = whole(self.model.component_config(name), "vocab_size", name)
            known = self._inversions or Inversions(vocabulary=vocabulary)
            inversions = known.with_words(words)
            components.use(inversions)
            self._inversions = inversions

    def configure(self, config: SessionConfig) -> None:
        """Make sessions in another way from now on."""
        with self._lock:
            if config != self.config:
                self.close()
                self.config, self._outgrown = config, math.inf

    def close(self) -> None:
        """Free the sessions, once no run uses them."""
        with self._lock:
            self._let_go()
            self._seen.clear()

    def _open(self, *, low_vram: bool) -> Components:
        from sdrt.run.components import Components

        if self._verify:
            self.model.verify(self._notices)
        if self.config.name not in self._told:
            self._told.add(self.config.name)
            # There is only one export of an embedded model, so the user cannot choose another target.
            if self.model.path != embedded_path(self.model.name):
                tell_of_target(self.model.target, self.model.name, self.config, self._notices)
        self._let_go()  # before others are made: there may not be room for both
        config = replace(self.config, low_vram=low_vram)
        make = self._make or Components
        self._components = make(self.model, config, self._notices, self._inversions, self.float32_retries)
        return self._components

    def _let_go(self) -> None:
        """Of every session; one that a run still uses ends with that."""
        if self._components is not None:
            self._components.close()
        self._components = None
