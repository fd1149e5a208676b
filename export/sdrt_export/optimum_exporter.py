"""The fallback: optimum's exporter, for models that sdrt's does not support."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdrt.common.extras import install_command
from sdrt.errors import ExportError
from sdrt_export.checkpoints.folder import FolderCheckpoint
from sdrt_export.checkpoints.weight_files import link_name

__all__ = ["OPSET", "export_pipeline"]

OPSET = 18


def export_pipeline(checkpoint: FolderCheckpoint, index: Mapping[str, Any], destination: Path) -> None:
    """Export ``checkpoint`` with optimum into ``destination``. ``index`` describes the pipeline.

    Raises:
        ExportError: optimum is not installed, or cannot export it.
    """
    try:
        from optimum.exporters.onnx import main_export
    except ImportError as error:
        raise ExportError.advised(
            "exporter 'optimum' needs optimum", install_command("optimum"), argument="exporter"
        ) from error
    source = destination / ".source"
    _link(checkpoint, index, source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the TorchScript exporter warns about itself
            main_export(
                str(source),
                output=destination,
                task="text-to-image",
                opset=OPSET,
                no_post_process=True,
                do_validation=False,
            )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise ExportError(
            f"{checkpoint.folder}: optimum cannot export this checkpoint: {reason}", path=checkpoint.folder
        ) from error
    finally:
        shutil.rmtree(source)


def _link(checkpoint: FolderCheckpoint, index: Mapping[str, Any], source: Path) -> None:
    """Make a folder with only what optimum may read. It would import classes of an index, and read pickles."""
    source.mkdir()
    (source / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    for file in checkpoint.files():
        # optimum asks for full precision, so files of half precision get its name.
        path = source / file.parent.name / link_name(file)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(file.resolve())
