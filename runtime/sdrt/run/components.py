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
from sdrt.families.capabilities import whole as whole_number
from sdrt.model_folder.folder import TAESD_DECODER, ModelFolder
from sdrt.onnx.cpu import is_int8_faster
from sdrt.onnx.float32_retry import Float32Retry
from sdrt.onnx.placement import check_target
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.run.denoiser import INPUTS, LABELS, OUTPUT
from sdrt.text.encoder import EOS_INDEX, TextEncoder, Tokenizer
from sdrt.text.textual_inversion import Inversions
from sdrt.vae.autoencoder import VaeDecoder, VaeEncoder, VaeGraphs, scaling_factor
from sdrt.vae.preview import TaesdPreview
from sdrt.vae.stages import StagedVae

__all__ = ["Components"]

T = TypeVar("T")

# What has no session, or a small one.
_LIGHT = frozenset({"vae_encoder", "vae_decoder", TAESD_DECODER})


class Components:
    """`text_encoder`, `unet`, `vae_encoder` and `vae_decoder` of a model folder, ready to be called."""

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
        if config.vae_tiling and not model.stages("vae_decoder").is_file():
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

    @property
    def text_encoder(self) -> TextEncoder:
        """Prompts to embeddings."""
        return self._once("text_encoder", self._make_text_encoder)

    @property
    def unet(self) -> Component:
        """The U-Net's graph; `Denoiser` gives it its meaning."""
        return self._once("unet", self._make_unet)

    @property
    def vae_encoder(self) -> VaeEncoder:
        """Pictures to latents."""
        return self._once("vae_encoder", self._make_vae_encoder)

    @property
    def vae_decoder(self) -> VaeDecoder:
        """Latents to pictures."""
        return self._once("vae_decoder", self._make_vae_decoder)

    @property
    def taesd(self) -> TaesdPreview:
        """Latents to pictures by a small decoder, of models that have one."""
        return self._once(TAESD_DECODER, lambda: TaesdPreview(self._open(TAESD_DECODER)))

    @property
    def graphs(self) -> tuple[Component, ...]:
        """Those in memory, in the order in which they were opened."""
        found = [reference() for reference in list(self._opened)]
        return tuple(component for component in found if component is not None)

    def use(self, inversions: Inversions) -> None:
        """Read the words of `inversions` from now on. Raises `UnsupportedModelError` if the text encoder cannot."""
        self.text_encoder.use(inversions)
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
        if self._model.has("text_encoder"):
            self.text_encoder  # noqa: B018
        self.unet  # noqa: B018
        self.vae_decoder.load()

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._made:
                if self.low_vram and name not in _LIGHT:
                    self._made = {name: made for name, made in self._made.items() if name in _LIGHT}
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
        component = Component(name, path, self._config, self._notices, self._model.weights(name))
        self._opened.append(weakref.ref(component, self._opened.remove))
        return component

    def _make_text_encoder(self) -> TextEncoder:
        config = self._model.component_config("text_encoder")
        if config.get("use_attention_mask"):
            raise UnsupportedModelError("text_encoder/config.json: use_attention_mask true is not supported")
        positions = whole_number(config, "max_position_embeddings", "text_encoder")
        tokenizer = Tokenizer(self._model.path / "tokenizer", max_positions=positions)
        component = self._open("text_encoder")
        ends = (EOS_INDEX,) if EOS_INDEX in component.inputs else ()
        component.require(("input_ids", *ends), ("last_hidden_state",))
        encoder = TextEncoder(tokenizer, component, self._notices)
        if self._inversions is not None:
            encoder.use(self._inversions)
        return encoder

    def _make_unet(self) -> Component:
        component = self._open("unet")
        labels = (LABELS,) if self._model.component_config("unet").get("num_class_embeds") else ()
        component.require((*INPUTS, *labels), (OUTPUT,))
        return component

    def _make_vae_encoder(self) -> VaeEncoder:
        graphs = self._vae_graphs("vae_encoder", "sample", "latent_parameters")
        return VaeEncoder(graphs, scaling_factor(self._model, "vae_encoder"))

    def _make_vae_decoder(self) -> VaeDecoder:
        graphs = self._vae_graphs("vae_decoder", "latent_sample", "sample")
        factor = self._model.capabilities.vae_scale_factor
        return VaeDecoder(graphs, scaling_factor(self._model, "vae_decoder"), factor=factor)

    def _vae_graphs(self, name: str, takes: str, gives: str) -> VaeGraphs:
        def whole() -> Component:
            component = self._open(name)
            if "latent_sample" in component.outputs:
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
    component = Component(name, path, config, notices, replace(model.weights(name), dtype="float32"))
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
