"""sdrt_export: from a Stable Diffusion checkpoint to ONNX graphs fused for the machine they will run on.

This package needs the ``export`` extra (torch, diffusers, transformers, onnx); the runtime never imports it to serve.
"""

import logging

# diffusers warns at import about how optimum is packaged, which no user of ours can change.
logging.getLogger("diffusers.utils.import_utils").setLevel(logging.ERROR)

from sdrt_export.architectures import ARCHITECTURES  # noqa: E402
from sdrt_export.export import EXPORTERS, ProgressEvent, Reporter, export_model  # noqa: E402
from sdrt_export.targets import TARGETS  # noqa: E402

__all__ = ["ARCHITECTURES", "EXPORTERS", "TARGETS", "ProgressEvent", "Reporter", "export_model"]
