"""The safety checker's folders in a model, and why a model that names one may not have it."""

from __future__ import annotations

__all__ = ["FEATURE_EXTRACTOR", "PREPROCESSOR", "SAFETY_CHECKER"]

SAFETY_CHECKER = "safety_checker"
"""The folder of its graph."""
FEATURE_EXTRACTOR, PREPROCESSOR = "feature_extractor", "preprocessor_config.json"
"""The folder and the file that say how its images are prepared."""
