"""The exporter, which is a package of its own and found by its entry point: the runtime imports none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from sdrt.common.extras import install_command
from sdrt.errors import ExportError
from sdrt.model_folder.manifest import Manifest

__all__ = ["GROUP", "Exporter", "load_exporter"]

GROUP = "sdrt.exporters"
"""The group of entry points that `load_exporter` looks in."""


class Exporter(Protocol):
    """What the runtime uses of an exporter."""

    ARCHITECTURES: Mapping[str, Any]
    """Configs of the components, by the name of an architecture."""

    def export_model(self, checkpoint: Any, output: Any, **options: Any) -> Manifest:
        """Export `checkpoint` to the folder `output`."""


def load_exporter() -> Exporter:
    """Import the exporter that is installed. Raises `ExportError` if there is none."""
    # Here, because importlib.metadata takes longer to import than most commands take to run.
    from importlib.metadata import entry_points

    for entry_point in entry_points(group=GROUP):
        return cast(Exporter, entry_point.load())
    raise ExportError(f"no exporter is installed: {install_command('export')}")
