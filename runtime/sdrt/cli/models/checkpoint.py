"""What a run of a checkpoint uses, for `sdrt info`: its scheduler, and the settings that a call does not give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt.cli.models.summary import defaults_of, shown_defaults
from sdrt.common.notices import Notify
from sdrt.common.visible import visible
from sdrt.errors import SdrtError

__all__ = ["FOLDER", "checkpoint_summary", "render_checkpoint"]

FOLDER = "a checkpoint in diffusers' layout"
_USED = ("family", "task", "scheduler", "prediction_type", "defaults")


def checkpoint_summary(path: Path, notify: Notify) -> dict[str, Any]:
    """What the checkpoint at `path` runs with, as JSON. `problem` says why it cannot run; all else is None then."""
    from sdrt.model_folder.resolve import resolve_model

    try:
        model = resolve_model(path, in_memory=True, notify=notify)
        capabilities, scheduler = model.capabilities, model.scheduler_config
    except SdrtError as error:
        return dict.fromkeys(_USED) | {"problem": str(error)}
    return {
        "family": model.family.name,
        "task": capabilities.task.name,
        "scheduler": scheduler.get("_class_name"),
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
        "defaults": defaults_of(capabilities.defaults),
        "problem": None,
    }


def render_checkpoint(title: str, summary: dict[str, Any]) -> str:
    """The summary as aligned lines below its title."""
    if summary["problem"] is not None:
        return f"{title}\nproblem    {visible(summary['problem'])}"
    rows = [
        ("family", summary["family"]),
        ("task", summary["task"]),
        ("scheduler", summary["scheduler"] or "unknown"),
        ("predicts", summary["prediction_type"]),
        ("defaults", shown_defaults(summary["defaults"])),
    ]
    return "\n".join([title, *(f"{name:9}  {visible(str(value))}" for name, value in rows)])
