"""sdrt_export turns a Stable Diffusion checkpoint into ONNX graphs, fused for the machine that runs them.

This package needs the ``export`` extra (onnx). Only :mod:`sdrt_export.verify` needs torch, to compare
graphs with it. The runtime imports it only to export or to open a checkpoint. The names below are loaded at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdrt_export.architectures import ARCHITECTURES
    from sdrt_export.bundle.write import write_bundle
    from sdrt_export.components.listing import list_architectures
    from sdrt_export.controlled_folder import add_controlnets, graph_of_folder
    from sdrt_export.direct import open_direct
    from sdrt_export.export import export_model
    from sdrt_export.job import ProgressEvent, Reporter
    from sdrt_export.options import EXPORTERS, ExportOptions
    from sdrt_export.prompted_model import add_ip_adapters
    from sdrt_export.targets import TARGETS

__all__ = [
    "ARCHITECTURES",
    "EXPORTERS",
    "TARGETS",
    "ExportOptions",
    "ProgressEvent",
    "Reporter",
    "add_controlnets",
    "add_ip_adapters",
    "export_model",
    "graph_of_folder",
    "list_architectures",
    "open_direct",
    "write_bundle",
]

_ELSEWHERE = {
    "ARCHITECTURES": "architectures",
    "EXPORTERS": "options",
    "ExportOptions": "options",
    "ProgressEvent": "job",
    "Reporter": "job",
    "TARGETS": "targets",
    "add_controlnets": "controlled_folder",
    "add_ip_adapters": "prompted_model",
    "export_model": "export",
    "graph_of_folder": "controlled_folder",
    "list_architectures": "components.listing",
    "open_direct": "direct",
    "write_bundle": "bundle.write",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'sdrt_export' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"sdrt_export.{_ELSEWHERE[name]}"), name)
    globals()[name] = value
    return value
