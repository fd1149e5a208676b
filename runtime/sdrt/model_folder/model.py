"""The interface of a model, which is a model folder, or a checkpoint whose graphs are built in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import Any, TypeVar

from sdrt.adapters.adaptation import NO_ADAPTATION, Adaptation
from sdrt.adapters.change import Shape
from sdrt.common.notices import Notices, Notify
from sdrt.families import Family
from sdrt.families.agreement import check_text_widths
from sdrt.families.capabilities import Capabilities, ModelFacts
from sdrt.model_folder.checker import SAFETY_CHECKER
from sdrt.model_folder.graph_kind import WHOLE_GRAPH, GraphKind
from sdrt.model_folder.index import class_of
from sdrt.model_folder.manifest import Manifest
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.memory_graph import MemoryGraph

__all__ = [
    "CONTROLNET",
    "IMAGE_ENCODER",
    "IP_ADAPTER",
    "GraphSource",
    "Model",
    "controlnet_name",
    "ip_adapter_name",
]

M = TypeVar("M", bound="Model")

CONTROLNET = "controlnet"
"""The folder of the first ControlNet. Further ones are `controlnet_2`, `controlnet_3`, and so on."""


def controlnet_name(index: int) -> str:
    """The component of the ControlNet number `index`, counted from 0."""
    return CONTROLNET if index == 0 else f"{CONTROLNET}_{index + 1}"


IP_ADAPTER = "ip_adapter"
"""The folder of the projection of the first IP-Adapter. Further ones are `ip_adapter_2`, and so on."""
IMAGE_ENCODER = "image_encoder"
"""The folder of CLIP's vision encoder, which IP-Adapters read."""


def ip_adapter_name(index: int) -> str:
    """The component of the IP-Adapter number `index`, counted from 0."""
    return IP_ADAPTER if index == 0 else f"{IP_ADAPTER}_{index + 1}"


@dataclass(frozen=True, kw_only=True)
class GraphSource:
    """Where a graph comes from: the file `path`, or `build`. With `build`, `path` is only for messages.

    The graph that `build` returns is large. It is freed after the session is created.
    """

    path: Path
    build: Callable[[], MemoryGraph] | None = None


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """One model: its graphs, configs and tokenizers.

    Attributes:
        path: its folder, or the checkpoint that it is built from.
        name: its name, in image metadata too.
        family: its family of models.
        manifest: how its graphs were made. None if another program made them.
        index: the content of `model_index.json`.
        adaptation: the adapters that change its weights.
        without_checker: whether the safety checker that it names was left out, as the user asked.
    """

    path: Path
    name: str
    family: Family
    manifest: Manifest | None = None
    index: Mapping[str, Any] = field(default_factory=dict)
    adaptation: Adaptation = NO_ADAPTATION
    without_checker: bool = False

    @abstractmethod
    def graph(self, name: str, kind: GraphKind = WHOLE_GRAPH) -> GraphSource | None:
        """A graph of the component `name`. `kind` is a file's name. None if the model has no such graph."""

    @abstractmethod
    def component_config(self, name: str) -> dict[str, Any]:
        """The config of the component `name`.

        Raises:
            IntegrityError: it is missing or damaged.
        """

    @abstractmethod
    def weights(self, name: str) -> Weights:
        """The precision of the component `name`, and a digest that identifies its weights."""

    @abstractmethod
    def tokenizer_folder(self, name: str) -> Path:
        """The folder of the tokenizer `name`."""

    @property
    @abstractmethod
    def scheduler_config(self) -> dict[str, Any]:
        """The model's `scheduler_config.json`."""

    @property
    @abstractmethod
    def low_res_scheduler_config(self) -> dict[str, Any]:
        """The `scheduler_config.json` that says how an upscaling model adds noise to the small image."""

    @abstractmethod
    def parameters(self, name: str) -> Mapping[str, Shape]:
        """The parameters of the component `name` that adapters can change, with their shapes in the checkpoint.

        Raises:
            UnsupportedModelError: nothing tells how the component's weights were made.
            IntegrityError: the graph is damaged.
        """

    def adapted(self: M, adaptation: Adaptation) -> M:
        """The model with the weights that `adaptation` makes of its own."""
        return self if adaptation is self.adaptation else replace(self, adaptation=adaptation)

    def for_target(self, target: str) -> Model:
        """The model with graphs for a row of the exporter's table, if it can have them; otherwise this model."""
        return self

    def preview_matrix(self) -> Any:
        """The linear map from latents to colours, as the manifest has it. None without one."""
        entry = self.manifest.components.get(self.family.vae.decoder, {}) if self.manifest else {}
        return entry.get("preview")

    def verify(self, notify: Notify | Notices | None = None) -> bool:
        """Check every file against its hash. Return False if there are no hashes.

        Raises:
            IntegrityError: a file is missing or damaged.
        """
        return False

    def has(self, name: str) -> bool:
        """Tell whether there is a graph of the component `name`."""
        return self.graph(name) is not None

    @cached_property
    def controlnets(self) -> tuple[str, ...]:
        """The components that are ControlNets, in their order. Those of other programs' folders have other inputs."""
        known = {} if self.manifest is None else self.manifest.components
        names = (controlnet_name(index) for index in count())
        return tuple(takewhile(lambda name: name in known and self.has(name), names))

    @property
    def controlnet_names(self) -> tuple[str, ...]:
        """The names of the ControlNets, in their order: of their files, or of their folders."""
        entries = {} if self.manifest is None else self.manifest.components
        return tuple(str(entries.get(name, {}).get("name", name)) for name in self.controlnets)

    @cached_property
    def ip_adapters(self) -> tuple[str, ...]:
        """The components that are projections of IP-Adapters, in their order."""
        known = {} if self.manifest is None else self.manifest.components
        names = (ip_adapter_name(index) for index in count())
        return tuple(takewhile(lambda name: name in known and self.has(name), names))

    @property
    def ip_adapter_names(self) -> tuple[str, ...]:
        """The names of the IP-Adapters, in their order: of their files."""
        entries = {} if self.manifest is None else self.manifest.components
        return tuple(str(entries.get(name, {}).get("name", name)) for name in self.ip_adapters)

    @property
    def ip_adapter_files(self) -> tuple[str, ...]:
        """What identifies the weights of each IP-Adapter."""
        return self.ip_adapters

    def without_ip_adapters(self) -> Model:
        """The model without IP-Adapters."""
        return self

    @property
    def other_vae(self) -> str | None:
        """The name of the VAE, if it replaces the model's own."""
        return None

    @property
    def prefers_vocabulary(self) -> bool:
        """Whether `vocab.json` and `merges.txt` take precedence over a `tokenizer.json` beside them."""
        return False

    @property
    def target(self) -> str:
        """The target that the graphs are for; empty if unknown."""
        return self.manifest.target if self.manifest else ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that may say which distilled model it is."""
        return (self.name,)

    @property
    def has_safety_checker(self) -> bool:
        """Whether images are checked after they are decoded, as in the model's own pipeline."""
        names_one = class_of(self.index.get(SAFETY_CHECKER)) is not None
        return names_one and not self.without_checker and not self.safety_checker_problem

    @property
    def offers_safety_checker(self) -> bool:
        """Whether it has a safety checker that can run, or was opened without it."""
        return self.has_safety_checker or self.without_checker

    @property
    @abstractmethod
    def safety_checker_problem(self) -> str:
        """Why the safety checker that the model names cannot run, such as "is incomplete". Empty otherwise."""

    @property
    @abstractmethod
    def preprocessor_config(self) -> dict[str, Any]:
        """The `preprocessor_config.json` that says how the safety checker's images are prepared. Empty without one."""

    @cached_property
    def capabilities(self) -> Capabilities:
        """The sizes, inputs and task that the model supports.

        Raises:
            IntegrityError: a config is damaged, or the text encoders are of another model.
            UnsupportedModelError: the model fits none of its family's tasks.
        """
        manifest, family = self.manifest, self.family
        texts = [spec.component for spec in family.text_encoders]
        has_text_encoder = all(self.has(name) for name in texts)
        denoiser = self.component_config(family.denoiser.component)
        if has_text_encoder:
            check_text_widths(family, denoiser, {name: self.component_config(name) for name in texts})
        facts = ModelFacts(
            denoiser=denoiser,
            vae=self.component_config(family.vae.decoder),
            text=self.component_config(texts[-1]) if self.has(texts[-1]) else {},
            index=self.index,
            scheduler=self.scheduler_config,
            recorded=manifest.defaults if manifest else None,
            names=self.names,
            # A traced graph (without sdrt.json) upsamples by a fixed factor of 2. sdrt's own graphs take any size.
            any_size=manifest is not None and manifest.exporter != "optimum",
            has_text_encoder=has_text_encoder,
            has_vae_encoder=self.has(family.vae.encoder),
            controlnets={name: self.component_config(name) for name in self.controlnets},
            ip_adapters={name: self.component_config(name) for name in self.ip_adapters},
            ip_adapter_files=self.ip_adapter_files,
        )
        return Capabilities.of(family, facts)

    def _dtype(self, name: str) -> str:
        """Return the precision of the component `name`, which may differ from that of the model."""
        if self.manifest is None:
            return "float32"
        own = self.manifest.components.get(name, {}).get("dtype")
        return own if isinstance(own, str) else self.manifest.dtype
