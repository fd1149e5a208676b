"""The safety checker's folders in a model, and how its images are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt.model_folder.manifest import read_json

__all__ = ["FEATURE_EXTRACTOR", "PREPROCESSOR", "SAFETY_CHECKER", "read_preprocessor"]

SAFETY_CHECKER = "safety_checker"
"""The folder of its graph."""
FEATURE_EXTRACTOR, PREPROCESSOR = "feature_extractor", "preprocessor_config.json"
"""The folder and the file that say how its images are prepared."""


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """The file of the model in `folder` that says how images are prepared. Empty if there is none.

    Raises:
        IntegrityError: it is damaged.
    """
    path = folder / FEATURE_EXTRACTOR / PREPROCESSOR
    return read_json(path, FEATURE_EXTRACTOR) if path.is_file() else {}
