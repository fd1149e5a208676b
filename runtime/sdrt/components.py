"""The sessions of one model on one provider, each created when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sdrt.config import SessionConfig
from sdrt.denoiser import INPUTS, OUTPUT
from sdrt.errors import UnsupportedModelError
from sdrt.limits import whole
from sdrt.model import ModelFolder
from sdrt.notices import Notices
from sdrt.session import Component
from sdrt.text import TextEncoder, Tokenizer
from sdrt.vae import VaeDecoder, scaling_factor

__all__ = ["Components"]

T = TypeVar("T")


class Components:
    """`text_encoder`, `unet` and `vae_decoder` of a model folder, ready to be called."""

    def __init__(self, model: ModelFolder, config: SessionConfig, notices: Notices) -> None:
        self._model, self._config, self._notices = model, config, notices
        self._made: dict[str, Any] = {}
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
    def vae_decoder(self) -> VaeDecoder:
        """Latents to pictures."""
        return self._once("vae_decoder", self._make_vae_decoder)

    def load(self) -> None:
        """Create all of them now."""
        if self._model.has("text_encoder"):
            self.text_encoder  # noqa: B018
        self.unet  # noqa: B018
        self.vae_decoder  # noqa: B018

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            made: T = self._made[name]
            return made

    def _open(self, name: str) -> Component:
        return Component(name, self._model.component(name), self._config, self._notices)

    def _make_text_encoder(self) -> TextEncoder:
        config = self._model.component_config("text_encoder")
        if config.get("use_attention_mask"):
            raise UnsupportedModelError("text_encoder/config.json: use_attention_mask true is not supported")
        positions = whole(config, "max_position_embeddings", "text_encoder")
        tokenizer = Tokenizer(self._model.path / "tokenizer", max_positions=positions)
        component = self._open("text_encoder")
        component.require(("input_ids",), ("last_hidden_state",))
        return TextEncoder(tokenizer, component, self._notices)

    def _make_unet(self) -> Component:
        component = self._open("unet")
        component.require(INPUTS, (OUTPUT,))
        return component

    def _make_vae_decoder(self) -> VaeDecoder:
        return VaeDecoder(self._open("vae_decoder"), scaling_factor(self._model, "vae_decoder"))
