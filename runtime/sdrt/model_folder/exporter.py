"""Finds the exporter, a separate package, by its entry point. The runtime never imports it directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from sdrt.common.extras import install_command, missing_modules
from sdrt.common.notices import Notify
from sdrt.errors import ExportError
from sdrt.model_folder.graph_kind import GraphKind
from sdrt.model_folder.manifest import Manifest
from sdrt.model_folder.model import Model
from sdrt.onnx.memory_graph import MemoryGraph

__all__ = ["GROUP", "Exporter", "load_exporter"]

GROUP = "sdrt.exporters"
"""The entry point group in which `load_exporter` looks."""


class Exporter(Protocol):
    """The part of an exporter that the runtime uses."""

    ARCHITECTURES: Mapping[str, Any]
    """The configs of the components of each architecture, by the architecture's name."""

    def export_model(self, checkpoint: Any, output: Any, **options: Any) -> Manifest:
        """Export `checkpoint` into the folder `output`."""

    def open_direct(
        self,
        source: str | Path,
        *,
        path: Path,
        target: str,
        name: str,
        revision: str | None,
        token: str | bool | None,
        cache_dir: str | Path | None,
        notify: Notify | None,
        safety_checker: bool,
        **beside: Any,
    ) -> Model:
        """Open a torch checkpoint as a model that is built in memory.

        Args:
            source: a folder or a file, or where either is on the hub.
            path: the folder or file.
            target: a row of the exporter's table.
            name: the model's name.
            revision, token, cache_dir: huggingface_hub's, for a source on the hub.
            notify: receives messages for the user.
            safety_checker: whether to open the checkpoint's safety checker, and to download it.
            beside: the attributes of `Beside` that were given.

        Raises:
            ModelError: the checkpoint is damaged, or sdrt does not support it.
            RequestError: one of `beside` is wrong, or not for this kind of checkpoint.
        """

    def add_controlnets(
        self,
        model: Any,
        controlnet: Sequence[str | Path],
        *,
        token: str | bool | None,
        cache_dir: str | Path | None,
    ) -> Model:
        """A model folder with ControlNets that are not in it. Nothing is written.

        Args:
            model: the model folder.
            controlnet: files, folders or hub ids of ControlNets.
            token, cache_dir: huggingface_hub's.

        Raises:
            ModelError: a ControlNet is damaged, for another model, or not supported.
            RequestError: the folder was not exported by sdrt, or is in int8.
        """

    def add_ip_adapters(
        self,
        model: Any,
        ip_adapter: Sequence[str | Path],
        image_encoder: str | Path | None,
        *,
        token: str | bool | None,
        cache_dir: str | Path | None,
    ) -> Model:
        """A model with IP-Adapters, in place of those that it has. Nothing is written.

        Args:
            model: a model folder, or a checkpoint that was opened by `open_direct`.
            ip_adapter: the adapters' files, or where they are on the hub.
            image_encoder: a file or folder with CLIP's vision encoder. None: the model's, or that beside the adapter.
            token, cache_dir: huggingface_hub's.

        Raises:
            ModelError: an adapter is damaged, for another model, or not supported, or there is no image encoder.
            RequestError: the model was not exported by sdrt, or is in int8.
        """

    def graph_of_folder(self, model: Any, kind: GraphKind, path: Path) -> MemoryGraph:
        """A graph for image prompts of a model folder's U-Net, with the weights of the graph `path` in the folder."""

    def write_bundle(self, model: str | Path, output: str | Path, **options: Any) -> Path:
        """Write what a program in another language needs to make images with a model."""

    def list_architectures(self) -> Sequence[Mapping[str, Any]]:
        """A row for each architecture: `architecture`, `title`, `parameters`, and `parts` with those of each part."""


def load_exporter(for_what: str = "") -> Exporter:
    """Import the installed exporter. `for_what` says in the error what needs it, such as "masks of image prompts".

    Raises:
        ExportError: none is installed, or, if something needs it, a package that it needs is not.
    """
    if for_what and missing_modules("export"):
        raise ExportError.advised(
            f"{for_what} need sdrt's exporter, which is not installed", install_command("export")
        )
    # Imported here because importlib.metadata takes longer to import than most commands take to run.
    from importlib.metadata import entry_points

    for entry_point in entry_points(group=GROUP):
        return cast(Exporter, entry_point.load())
    raise ExportError.advised("no exporter is installed", install_command("export"))
