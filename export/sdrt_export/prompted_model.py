"""A model with IP-Adapters that are not in it. Nothing is written.

The U-Net's graph for image prompts has the model's own weights and those of the adapters. It is built in memory, and
both stay in their files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sdrt.adapters.adaptation import Adaptation
from sdrt.adapters.change import Shape
from sdrt.common.notices import Notices, Notify
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.graph_kind import WHOLE_GRAPH, GraphKind
from sdrt.model_folder.model import IMAGE_ENCODER, IP_ADAPTER, GraphSource, Model
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt_export.component_graphs import graph_of
from sdrt_export.controlled_folder import check_takes_more, folder_with_images
from sdrt_export.direct import DirectModel
from sdrt_export.graphs.in_place import bind_in_place
from sdrt_export.image_prompts import ImagePrompts, load_image_prompts
from sdrt_export.targets import TARGETS

__all__ = ["PromptedModel", "add_ip_adapters"]

_HALF = "float16"


@dataclass(frozen=True, kw_only=True)
class PromptedModel(Model):
    """A model with IP-Adapters beside it. Everything else is that of `base`."""

    base: Model
    prompts: ImagePrompts

    @classmethod
    def of(cls, base: Model, prompts: ImagePrompts) -> PromptedModel:
        """The model `base` with these IP-Adapters."""
        return cls(
            path=base.path,
            name=base.name,
            family=base.family,
            manifest=base.manifest,
            index=base.index,
            adaptation=base.adaptation,
            without_checker=base.without_checker,
            base=base,
            prompts=prompts,
        )

    def graph(self, name: str, kind: GraphKind = WHOLE_GRAPH) -> GraphSource | None:
        """See `Model`."""
        denoiser = self.family.denoiser.component
        is_own = name in self._pieces
        if not is_own and not (name == denoiser and kind.inputs.images):
            is_replaced = name.startswith(IP_ADAPTER)
            return None if is_replaced else self.base.graph(name, kind)
        if kind.wide and not self._is_half:
            return None
        if not is_own:
            return GraphSource(path=self.path / name / kind.file, build=partial(self._seeing, kind))
        if kind.narrowed != WHOLE_GRAPH:
            return None
        return GraphSource(path=Path(self._pieces[name].place), build=partial(self._built, name, kind))

    @property
    def _is_half(self) -> bool:
        """Whether the U-Net computes in float16."""
        return self._dtype(self.family.denoiser.component) == _HALF and TARGETS[self.target].halves

    @cached_property
    def _pieces(self) -> Mapping[str, Any]:
        return self.prompts.pieces

    def _built(self, name: str, kind: GraphKind) -> MemoryGraph:
        """A graph of a piece, which computes in float16 where the U-Net does."""
        piece, target = self._pieces[name], TARGETS[self.target]
        graph = graph_of(piece.component, piece.config, target, half=self._is_half, kind=kind)
        return bind_in_place(graph, piece.stored_tensors, turned=target.turns)

    def _seeing(self, kind: GraphKind) -> MemoryGraph:
        """The U-Net's graph for image prompts."""
        if isinstance(self.base, DirectModel):
            return self.base.with_images(kind, self.prompts.tensors)
        assert isinstance(self.base, ModelFolder), type(self.base)
        return folder_with_images(self.base, kind, self.prompts.tensors)

    @cached_property
    def ip_adapters(self) -> tuple[str, ...]:
        """See `Model`."""
        return tuple(piece.component.name for piece in self.prompts.projections)

    @property
    def ip_adapter_names(self) -> tuple[str, ...]:
        """See `Model`."""
        return tuple(piece.name for piece in self.prompts.projections)

    @cached_property
    def ip_adapter_files(self) -> tuple[str, ...]:
        """See `Model`."""
        return self.prompts.files

    def without_ip_adapters(self) -> Model:
        """See `Model`."""
        return self.base.without_ip_adapters()

    def component_config(self, name: str) -> dict[str, Any]:
        """See `Model`."""
        return dict(self._pieces[name].config) if name in self._pieces else self.base.component_config(name)

    def weights(self, name: str) -> Weights:
        """See `Model`. The pieces have no digest, because nothing is compiled."""
        if name not in self._pieces:
            return self.base.weights(name)
        return Weights(dtype=self._dtype(self.family.denoiser.component))

    def adapted(self, adaptation: Adaptation) -> PromptedModel:
        """See `Model`."""
        base = self.base.adapted(adaptation)
        return self if base is self.base else replace(self, base=base, adaptation=adaptation)

    def for_target(self, target: str) -> Model:
        """See `Model`."""
        base = self.base.for_target(target)
        return self if base is self.base else PromptedModel.of(base, self.prompts)

    # --- what is the base's -----------------------------------------------------------------------------------

    def parameters(self, name: str) -> Mapping[str, Shape]:
        """See `Model`."""
        return self.base.parameters(name)

    def tokenizer_folder(self, name: str) -> Path:
        """See `Model`."""
        return self.base.tokenizer_folder(name)

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """See `Model`."""
        return self.base.scheduler_config

    @property
    def low_res_scheduler_config(self) -> dict[str, Any]:
        """See `Model`."""
        return self.base.low_res_scheduler_config

    def preview_matrix(self) -> Any:
        """See `Model`."""
        return self.base.preview_matrix()

    def verify(self, notify: Notify | Notices | None = None) -> bool:
        """See `Model`."""
        return self.base.verify(notify)

    @cached_property
    def controlnets(self) -> tuple[str, ...]:
        """See `Model`."""
        return self.base.controlnets

    @property
    def controlnet_names(self) -> tuple[str, ...]:
        """See `Model`."""
        return self.base.controlnet_names

    @property
    def other_vae(self) -> str | None:
        """See `Model`."""
        return self.base.other_vae

    @property
    def prefers_vocabulary(self) -> bool:
        """See `Model`."""
        return self.base.prefers_vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """See `Model`."""
        return self.base.names

    @property
    def safety_checker_problem(self) -> str:
        """See `Model`."""
        return self.base.safety_checker_problem

    @property
    def preprocessor_config(self) -> dict[str, Any]:
        """See `Model`."""
        return self.base.preprocessor_config


def add_ip_adapters(
    model: Model,
    ip_adapter: Sequence[str | Path],
    image_encoder: str | Path | None = None,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> PromptedModel:
    """A model with these IP-Adapters, in place of those that it has. See `sdrt.model_folder.exporter`."""
    check_takes_more(model, IP_ADAPTER)
    base = model.without_ip_adapters()
    prompts = load_image_prompts(
        ip_adapter,
        image_encoder,
        unet=base.component_config(base.family.denoiser.component),
        model=base.name,
        folder=base.path,
        encoder_config=base.component_config(IMAGE_ENCODER) if base.has(IMAGE_ENCODER) else None,
        target=TARGETS[base.target],
        access={"token": token, "cache_dir": cache_dir},
    )
    return PromptedModel.of(base, prompts)
