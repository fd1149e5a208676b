"""Stable Diffusion with NumPy and ONNX Runtime.

>>> from sdrt import StableDiffusionPipeline
>>> pipeline = StableDiffusionPipeline.from_pretrained("shapes")
>>> image = pipeline("a red circle", seed=0).images[0]

Importing this package does no work. Each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdrt.common.notices import SdrtWarning
    from sdrt.common.version import __version__
    from sdrt.errors import (
        ComponentError,
        ExportError,
        IntegrityError,
        ModelError,
        ModelNotFoundError,
        OutOfMemoryError,
        ProviderError,
        RequestError,
        RunCancelledError,
        SdrtError,
        UnsupportedModelError,
    )
    from sdrt.images.metadata import read_metadata
    from sdrt.pipeline import StableDiffusionPipeline
    from sdrt.prompts.wildcards import expand_wildcards
    from sdrt.request.request import Request
    from sdrt.run.result import GenerationStep, StableDiffusionPipelineOutput

__all__ = [
    "ComponentError",
    "ExportError",
    "GenerationStep",
    "IntegrityError",
    "ModelError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "ProviderError",
    "Request",
    "RequestError",
    "RunCancelledError",
    "SdrtError",
    "SdrtWarning",
    "StableDiffusionPipeline",
    "StableDiffusionPipelineOutput",
    "UnsupportedModelError",
    "__version__",
    "expand_wildcards",
    "read_metadata",
]

# The modules of the names that are not in `errors`.
_MODULES = {
    "GenerationStep": "run.result",
    "StableDiffusionPipeline": "pipeline",
    "StableDiffusionPipelineOutput": "run.result",
    "Request": "request.request",
    "SdrtWarning": "common.notices",
    "__version__": "common.version",
    "expand_wildcards": "prompts.wildcards",
    "read_metadata": "images.metadata",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        return _foreign(name)
    value = getattr(importlib.import_module(f"sdrt.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def _foreign(name: str) -> Any:
    """One of diffusers' schedulers; for any other name, raise an error that says what to write instead."""
    if name.startswith("_"):
        raise AttributeError(f"module 'sdrt' has no attribute {name!r}")
    known = __all__
    if name[0].isupper():  # perhaps a scheduler, or a misspelling of one
        from difflib import get_close_matches

        from sdrt.schedulers.diffusers_classes import SchedulerClass, class_names

        if name in class_names():
            return SchedulerClass(name)
        known = [*__all__, *get_close_matches(name[:64], class_names(), n=1, cutoff=0.7)]
    from sdrt.foreign.imports import IMPORTS
    from sdrt.foreign.word import no_attribute, no_name

    # `from sdrt import name` first looks for an attribute. After an AttributeError, it looks for a module of that name
    # and raises its own error, without our message. It shows an ImportError unchanged.
    is_import = sys._getframe(2).f_globals.get("__name__") == "importlib._bootstrap"
    if is_import and PathFinder.find_spec(f"sdrt.{name}", __path__) is None:
        raise no_name(name, known, IMPORTS)
    raise no_attribute("sdrt", name, known, IMPORTS)


def __dir__() -> list[str]:
    return sorted(__all__)
