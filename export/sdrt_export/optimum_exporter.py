"""The fallback: optimum's own exporter, for components that have no fused form here."""

from __future__ import annotations

import warnings
from pathlib import Path

from sdrt.errors import ExportError

__all__ = ["OPSET", "export_pipeline"]

OPSET = 18


def export_pipeline(checkpoint: Path, destination: Path) -> None:
    """Export the diffusers folder ``checkpoint`` with optimum into ``destination``.

    Raises:
        ExportError: optimum is not installed.
    """
    try:
        from optimum.exporters.onnx import main_export
    except ImportError as error:
        raise ExportError("exporter 'optimum' needs optimum: pip install 'sdrt[optimum]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter's, about itself
        main_export(
            str(checkpoint),
            output=destination,
            task="text-to-image",
            opset=OPSET,
            no_post_process=True,
            do_validation=False,
        )
