"""Where models in int8 may run."""

from __future__ import annotations

from sdrt.common.notices import Notices
from sdrt.errors import ProviderError
from sdrt.model_folder.model import Model
from sdrt.onnx.cpu import is_int8_faster
from sdrt.onnx.providers import SessionConfig

__all__ = ["check_dtype"]


def check_dtype(model: Model, config: SessionConfig, notices: Notices) -> None:
    """Check that the provider and the CPU suit a model in int8. With `allow_fallback`, only warn.

    Raises:
        ProviderError: int8 cannot run, or would be slower than float32.
    """
    if model.manifest is None or model.manifest.dtype != "int8":
        return
    problem = ""
    if config.name != "cpu":
        problem = f"{model.path} is in int8, which runs on provider cpu, not on {config.name}"
    elif is_int8_faster() is False:
        problem = (
            f"{model.path} is in int8, which is slower than float32 on this CPU, because it has none of AVX2, VNNI and "
            "dot products"
        )
    if problem and not config.allow_fallback:
        raise ProviderError.advised(
            problem,
            "export the checkpoint with --dtype fp32, or run it anyway with allow_fallback=True "
            "(--allow-fallback)",
            provider=config.name,
            path=model.path,
        )
    if problem:
        notices.warn(problem)
