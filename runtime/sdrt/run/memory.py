"""Keeps a model's components in memory between runs, and changes to `low_vram` when memory runs out."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdrt.adapters.adaptation import NO_ADAPTATION, Adaptation
from sdrt.common.allocator import trim
from sdrt.common.cancelling import held
from sdrt.common.messages import wrong_value
from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError, ProviderError
from sdrt.families import TextEncoderSpec
from sdrt.families.capabilities import whole
from sdrt.model_folder.embedded import embedded_path
from sdrt.model_folder.model import Model
from sdrt.onnx.error_messages import out_of_memory
from sdrt.onnx.placement import check_takes_weights, tell_of_target
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.request.fitted import FittedRequest
from sdrt.run.advice import with_advice
from sdrt.run.every_graph import load_every_graph
from sdrt.text.textual_inversion import Inversion, Inversions, Reader, read_inversions

if TYPE_CHECKING:
    from sdrt.run.components import LoadedComponents

__all__ = ["ComponentCache", "MakeComponents"]

MakeComponents = Callable[
    [Model, SessionConfig, Notices, "Inversions | None", "Counter[str]"], "LoadedComponents"
]


class ComponentCache:
    """The components of a model that are in memory, all with one configuration. Safe to use from several threads.

    If memory runs out in a request, the cache frees the components. It loads them with `low_vram` for that request, and
    for all later requests with at least as many pixels. A run keeps the components that it began with, even if
    `configure` or `close` is called meanwhile.

    Args:
        model: the model.
        config: the settings of the sessions.
        notices: receives messages for the user.
        verify: whether to check the hashes of the files before they are loaded.
        make: makes the components; `LoadedComponents` by default. The exporter's calibration passes its own.
    """

    def __init__(
        self,
        model: Model,
        config: SessionConfig,
        notices: Notices,
        *,
        verify: bool = True,
        make: MakeComponents | None = None,
    ) -> None:
        self.model, self.config, self._make = model, config, make
        self.adaptation = NO_ADAPTATION
        """The adapters that are active for calls that name none."""
        self.float32_retries: Counter[str] = Counter()
        """How many runs of each component were repeated in float32 because they overflowed float16."""
        self._notices, self._verify = notices, verify
        self._loaded: LoadedComponents | None = None
        self._inversions: Inversions | None = None
        # Memory ran out in a request of this many pixels. Larger requests use low_vram from the start.
        self._low_vram_pixels = math.inf
        self._sizes_run: set[tuple[int, int, int]] = set()
        self._providers_checked: set[str] = set()
        self._told_of_safety_checker = False
        self._lock = threading.RLock()

    @property
    def current(self) -> LoadedComponents | None:
        """The components in memory; None if there are none."""
        return self._loaded

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the textual inversions."""
        return () if self._inversions is None else self._inversions.tokens

    def get(self, adaptation: Adaptation | None = None) -> LoadedComponents:
        """Return the components with these adapters, or the active ones. Make them if there are none."""
        chosen = self.adaptation if adaptation is None else adaptation
        with held(self._lock):
            return self._with(chosen, low_vram=self._uses_low_vram(0))

    def load(self, request: FittedRequest | None = None) -> None:
        """Create every session that text to image needs: for this request, or with the active adapters.

        If they do not all fit into memory, change to `low_vram`, which creates each session when it is needed.

        Raises:
            OutOfMemoryError: they do not fit, and `low_vram` is False.
        """
        adaptation = None if request is None else request.adaptation
        used_low_vram, components = self._uses_low_vram(0), self.get(adaptation)
        try:
            components.load(request)
            return
        except OutOfMemoryError as error:
            where = "for all images: the components do not fit into memory together"
            switched = self._switch_to_low_vram(0, error, where)
            # If another thread has switched meanwhile, there is no need to fail.
            if not switched and used_low_vram == self._uses_low_vram(0):
                self.close()
                raise self.with_advice(error, None) from error
        finally:
            if components is not self._loaded:
                # They were replaced meanwhile. Free the sessions that were created since then.
                components.close()
        # This is outside `except`, because the error's traceback would keep the old sessions in memory.
        self.get(adaptation).load(request)

    def for_request(self, request: FittedRequest, model: Model | None = None) -> LoadedComponents:
        """Return the components for a request. They use `low_vram` if memory ran out for one of that size before.

        `model` is the one that the request was planned for, which may have other IP-Adapters than the present one.
        """
        with held(self._lock):
            found = self._with(request.adaptation, low_vram=self._uses_low_vram(request.num_pixels))
            if model is None or model is self.model:
                return found
            return found.of_model(self._adapted(model, request.adaptation))

    def switch_to_low_vram(self, request: FittedRequest, error: OutOfMemoryError) -> bool:
        """Use `low_vram` for this request and larger ones from now on. Tell whether the request should be tried again.

        It should not if it used `low_vram` already, or if the user has set `low_vram`.
        """
        return self._switch_to_low_vram(
            request.num_pixels, error, "for images of this size and all larger ones"
        )

    def with_advice(self, error: OutOfMemoryError, request: FittedRequest | None) -> OutOfMemoryError:
        """Return the error with advice that the request has not taken yet."""
        low_vram = self._uses_low_vram(request.num_pixels if request else 0)
        return with_advice(error, self.config, request, low_vram=low_vram)

    def _uses_low_vram(self, pixels: int) -> bool:
        low_vram = self.config.low_vram
        return pixels >= self._low_vram_pixels if low_vram is None else low_vram

    def _switch_to_low_vram(self, pixels: int, error: OutOfMemoryError, where: str) -> bool:
        with self._lock:
            if self.config.low_vram is not None or self._uses_low_vram(pixels):
                return False
            self._low_vram_pixels = pixels
            self._free()
        reason = out_of_memory(error.component, error.provider)
        self._notices.warn(f"{reason}. Trying again with low_vram, which is slower, {where}")
        return True

    def is_first_run(self, request: FittedRequest) -> bool:
        """Tell whether no request of this size and number of images has run on these sessions, and note this one."""
        size = request.width, request.height, request.num_images
        with self._lock:
            is_first = size not in self._sizes_run
            self._sizes_run.add(size)
            return is_first

    def use_model(self, model: Model) -> None:
        """Use the same model with other IP-Adapters from now on. What both have in common stays in memory."""
        with self._lock:
            self.model = model
            if self._loaded is not None:
                self._loaded = self._loaded.of_model(self._adapted(model, self._loaded.adaptation))
                # The graphs of the other IP-Adapters are free now.
                trim()

    def tune(self) -> None:
        """Tune every graph of the model for this machine's CPU, one after the other.

        Those of the VAE in stages are tuned only if `vae_tiling` is set.

        Raises:
            ProviderError: the sessions are not on the CPU.
            ModelError, OutOfMemoryError: a graph cannot be loaded.
        """
        config = self.config
        if config.name != "cpu":
            raise ProviderError.advised(
                f"graphs can be tuned for the CPU, and this pipeline runs on {config.name}",
                'load it with provider="cpu"',
                provider=config.name,
                argument="provider",
            )
        try:
            # Tuning takes twice the memory of a component, so the others are freed.
            self.configure(replace(config, tune=True, low_vram=True, vae_tiling=bool(config.vae_tiling)))
            load_every_graph(self.get(), self.model)
        finally:
            self.configure(config)

    def load_words(self, path: str | Path, token: str | None) -> list[str]:
        """Read a textual inversion, add its words to the text encoders, and return them.

        Raises:
            ModelNotFoundError, UnsupportedModelError, RequestError: see `read_inversions`, and `add_words`.
        """
        words = read_inversions(
            path,
            token=token,
            readers=[self._reader(spec) for spec in self.model.family.text_encoders],
            notices=self._notices,
        )
        self.add_words(words)
        return [word.token for word in words]

    def _reader(self, spec: TextEncoderSpec) -> Reader:
        name = spec.component
        config = self.model.component_config(name)
        return Reader(
            width=whole(config, "hidden_size", name),
            room=whole(config, "max_position_embeddings", name) - 2,
            part=spec.part,
        )

    def add_words(self, words: Sequence[Inversion]) -> None:
        """Add words of textual inversions to the text encoder.

        Raises:
            RequestError: a word is loaded already.
            UnsupportedModelError: the text encoder does not support textual inversions.
        """
        with self._lock:
            components = self.get()
            inversions = (self._inversions or Inversions(vocabulary=0)).with_words(words)
            components.use(inversions)
            self._inversions = inversions

    def remove_words(self, tokens: str | Sequence[str] | None) -> None:
        """Remove words of textual inversions from the text encoder; all of them if `tokens` is None.

        Raises:
            RequestError: a word is not loaded.
        """
        words = [tokens] if isinstance(tokens, str) else tokens
        if not (words is None or isinstance(words, (list, tuple))):
            raise wrong_value("tokens", tokens, "a word, a list of words, or None for all")
        with self._lock:
            inversions = (self._inversions or Inversions(vocabulary=0)).without_words(words)
            if self._inversions is not None:
                self.get().use(inversions)
                self._inversions = inversions

    def configure(self, config: SessionConfig) -> None:
        """Use other session settings from now on. If they differ, the components are freed."""
        with self._lock:
            if config != self.config:
                self.close()
                self.config, self._low_vram_pixels = config, math.inf

    def free(self) -> bool:
        """Free the sessions for another model, and tell whether there were any. A later run makes them again."""
        with self._lock:
            had_some = self._loaded is not None
            self._free()
            return had_some

    def close(self) -> None:
        """Free the sessions. Those that a run still uses are freed when it ends."""
        with self._lock:
            self._free()
            self._sizes_run.clear()

    def _with(self, adaptation: Adaptation, *, low_vram: bool) -> LoadedComponents:
        """The components in memory, changed by these adapters.

        Raises `ProviderError` if the provider compiles graphs with their weights.
        """
        if adaptation.parts:
            check_takes_weights(self.config)
        loaded = self._loaded
        if loaded is None or loaded.low_vram != low_vram:
            return self._load(adaptation, low_vram=low_vram)
        if loaded.adaptation != adaptation:
            self._loaded = loaded = loaded.adapted(adaptation)
        return loaded

    def _load(self, adaptation: Adaptation, *, low_vram: bool) -> LoadedComponents:
        from sdrt.run.components import LoadedComponents

        if self._verify:
            self.model.verify(self._notices)
        model = self._adapted(self.model, adaptation)
        if self.config.name not in self._providers_checked:
            self._providers_checked.add(self.config.name)
            # There is only one export of an embedded model, so the user cannot choose another target.
            if self.model.path != embedded_path(self.model.name):
                tell_of_target(model.target, model.name, self.config, self._notices)
        if (problem := self.model.safety_checker_problem) and not self._told_of_safety_checker:
            self._told_of_safety_checker = True
            self._notices.warn(f"the safety checker of {self.model.name} {problem}. Images are not filtered")
        self._free()  # before new ones are made, because both may not fit into memory
        config = replace(self.config, low_vram=low_vram)
        make = self._make or LoadedComponents
        self._loaded = make(model, config, self._notices, self._inversions, self.float32_retries)
        return self._loaded

    def _adapted(self, model: Model, adaptation: Adaptation) -> Model:
        return model.for_target(PROVIDERS[self.config.name].target).adapted(adaptation)

    def _free(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = None
