"""Stable Diffusion with NumPy and ONNX Runtime.

>>> from sdrt import StableDiffusionPipeline
>>> pipeline = StableDiffusionPipeline.from_pretrained("shapes")
>>> image = pipeline("a red circle", seed=0).images[0]

Importing this package does no work. Each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
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
        raise AttributeError(f"module 'sdrt' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"sdrt.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
