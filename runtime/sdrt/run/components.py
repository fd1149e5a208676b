"""The sessions of one model on one provider, each created when it is first needed."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from sdrt.common.allocator import trim
from sdrt.common.notices import Notices
from sdrt.errors import ProviderError, UnsupportedModelError
from sdrt.families import TextEncoderSpec
from sdrt.families.capabilities import whole as whole_number
from sdrt.model_folder.folder import TAESD_DECODER, ModelFolder
from sdrt.onnx.cpu import is_int8_faster
from sdrt.onnx.float32_retry import Float32Retry
from sdrt.onnx.placement import check_target
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.text.encoder import TextEncoder
from sdrt.text.textual_inversion import Inversions
from sdrt.text.tokenizer import Tokenizer
from sdrt.vae.autoencoder import VaeDecoder, VaeEncoder, VaeGraphs
from sdrt.vae.latent_scale import LatentScale
from sdrt.vae.preview import TaesdPreview
from sdrt.vae.stages import StagedVae

__all__ = ["Components"]

T = TypeVar("T")


class Components:
    """The text encoders, the denoiser and the VAE of a model folder, ready to be called."""

    def __init__(
        self,
        model: ModelFolder,
        config: SessionConfig,
        notices: Notices,
        inversions: Inversions | None = None,
        float32_retries: Counter[str] | None = None,
    ) -> None:
        check_target(model.target, model.path, config)
        self._model, self._config, self._notices = model, config, notices
        self._family = family = model.family
        # What has no session, or a small one.
        self._light = frozenset({family.vae.encoder, family.vae.decoder, TAESD_DECODER})
        if config.vae_tiling and not model.stages(model.family.vae.decoder).is_file():
            raise UnsupportedModelError(
                f"vae_tiling: {model.path} was exported without the VAE in stages: export the checkpoint again with "
                "this version of sdrt export, or leave it out"
            )
        _check_dtype(model, config, notices)
        self.low_vram = bool(config.low_vram)
        self._inversions = inversions
        self._float32_retries: Counter[str] = Counter() if float32_retries is None else float32_retries
        self._made: dict[str, Any] = {}
        # What a run still uses after it was let go of: another run that needs it takes the same.
        self._used: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._opened: list[weakref.ref[Component]] = []
        self._lock = threading.Lock()

    def text_encoder(self, number: int = 0) -> TextEncoder:
        """Prompts to embeddings, by one of the family's text encoders."""
        spec = self._family.text_encoders[number]
        return self._once(spec.component, lambda: self._make_text_encoder(spec))

    @property
    def denoiser(self) -> Component:
        """The denoiser's graph; `Denoiser` gives it its meaning."""
        return self._once(self._family.denoiser.component, self._make_denoiser)

    @property
    def vae_encoder(self) -> VaeEncoder:
        """Images to latents."""
        return self._once(self._family.vae.encoder, self._make_vae_encoder)

    @property
    def vae_decoder(self) -> VaeDecoder:
        """Latents to images."""
        return self._once(self._family.vae.decoder, self._make_vae_decoder)

    @property
    def taesd(self) -> TaesdPreview:
        """Latents to images by a small decoder, of models that have one."""
        return self._once(TAESD_DECODER, lambda: TaesdPreview(self._open(TAESD_DECODER)))

    @property
    def graphs(self) -> tuple[Component, ...]:
        """Those in memory, in the order in which they were opened."""
        found = [reference() for reference in list(self._opened)]
        return tuple(component for component in found if component is not None)

    def use(self, inversions: Inversions) -> None:
        """Read the words of `inversions` from now on. Raises `UnsupportedModelError` if the text encoder cannot."""
        self.text_encoder().use(inversions)
        self._inversions = inversions

    def close(self) -> None:
        """Let go of every session; one that a run still uses ends with that."""
        with self._lock:
            self._made.clear()
        trim()

    def load(self) -> None:
        """Create all that text to image needs, now; with `low_vram` nothing, where each is made when it is needed."""
        if self.low_vram:
            return
        for number, spec in enumerate(self._family.text_encoders):
            if self._model.has(spec.component):
                self.text_encoder(number)
        self.denoiser  # noqa: B018
        self.vae_decoder.load()

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._made:
                if self.low_vram and name not in self._light:
                    self._made = {name: made for name, made in self._made.items() if name in self._light}
                    trim()
                # Looked for after that, so that what nobody uses is gone.
                found = self._used.get(name)
                self._made[name] = self._used[name] = make() if found is None else found
            made: T = self._made[name]
            return made

    def _open(self, name: str, path: Path | None = None) -> Component:
        component = self._component(name, path or self._model.component(name))
        wide = self._model.wide(name) if path is None else self._model.wide_stages(name)
        if wide.is_file():
            # It is told of nothing but what it needs: through this it would keep every component in memory.
            open_wide = partial(
                _open_wide, name, wide, self._config, self._notices, self._model, self._opened
            )
            component.float32_retry = Float32Retry(name, open_wide, self._notices, self._float32_retries)
        return component

    def _component(self, name: str, path: Path) -> Component:
        component = Component(
            name,
            path,
            self._config,
            self._notices,
            self._model.weights(name),
            repeats=name == self._family.denoiser.component,
        )
        self._opened.append(weakref.ref(component, self._opened.remove))
        return component

    def _make_text_encoder(self, spec: TextEncoderSpec) -> TextEncoder:
        name = spec.component
        config = self._model.component_config(name)
        if config.get("use_attention_mask"):
            raise UnsupportedModelError(
                f"{name}/config.json: use_attention_mask true is not supported", component=name
            )
        positions = whole_number(config, "max_position_embeddings", name)
        tokenizer = Tokenizer(self._model.path / spec.tokenizer, max_positions=positions)
        encoder = TextEncoder(tokenizer, self._open(name), self._notices, spec)
        if self._inversions is not None:
            encoder.use(self._inversions)
        return encoder

    def _make_denoiser(self) -> Component:
        spec = self._family.denoiser
        component = self._open(spec.component)
        component.require(spec.inputs(self._model.component_config(spec.component)), (spec.output,))
        return component

    def _make_vae_encoder(self) -> VaeEncoder:
        spec = self._family.vae
        graphs = self._vae_graphs(spec.encoder, spec.image, spec.parameters)
        return VaeEncoder(graphs, spec, self._latent_scale(spec.encoder))

    def _make_vae_decoder(self) -> VaeDecoder:
        spec = self._family.vae
        return VaeDecoder(
            self._vae_graphs(spec.decoder, spec.latents, spec.decoded),
            spec,
            self._latent_scale(spec.decoder),
            factor=self._model.capabilities.vae_scale_factor,
            denoiser=self._family.denoiser.component,
        )

    def _latent_scale(self, name: str) -> LatentScale:
        return LatentScale.of(self._model.component_config(name), name, shifts=self._family.vae.shifts)

    def _vae_graphs(self, name: str, takes: str, gives: str) -> VaeGraphs:
        def whole() -> Component:
            component = self._open(name)
            if self._family.vae.latents in component.outputs:
                raise UnsupportedModelError(
                    f"{name}: the graph draws noise of its own, so that no seed says what comes out: export the "
                    "checkpoint again with sdrt export"
                )
            component.require((takes,), (gives,))
            return component

        def staged() -> StagedVae:
            return StagedVae(self._open(name, path))

        path = self._model.stages(name)
        return VaeGraphs(
            lambda: self._once(f"{name}, whole", whole),
            (lambda: self._once(f"{name}, in stages", staged)) if path.is_file() else None,
            tiling=self._tiling(path),
        )

    def _tiling(self, stages: Path) -> bool | None:
        """Whether the VAE works in tiles whatever the size; None leaves it to the size."""
        wanted = self._config.vae_tiling
        return True if wanted is None and self.low_vram and stages.is_file() else wanted


def _open_wide(
    name: str,
    path: Path,
    config: SessionConfig,
    notices: Notices,
    model: ModelFolder,
    opened: list[weakref.ref[Component]],
) -> Component:
    """The graph in float32 of a component whose weights are in float16, which no provider is to compute in."""
    component = Component(
        name,
        path,
        config,
        notices,
        replace(model.weights(name), dtype="float32"),
        repeats=name == model.family.denoiser.component,
    )
    opened.append(weakref.ref(component, opened.remove))
    return component


def _check_dtype(model: ModelFolder, config: SessionConfig, notices: Notices) -> None:
    """Refuse int8 where its operators are missing, or it is not the faster one, unless a fallback is allowed."""
    if model.manifest is None or model.manifest.dtype != "int8":
        return
    problem = ""
    if config.name != "cpu":
        problem = f"{model.path} is in int8, which is for provider cpu, not {config.name}"
    elif is_int8_faster() is False:
        problem = (
            f"{model.path} is in int8, and this CPU has none of AVX2, VNNI and dot products, which make it faster than "
            "float32"
        )
    if problem and not config.allow_fallback:
        raise ProviderError(
            f"{problem}: export the checkpoint with --dtype fp32, or run it anyway with allow_fallback=True "
            "(--allow-fallback)"
        )
    if problem:
        notices.warn(problem)
