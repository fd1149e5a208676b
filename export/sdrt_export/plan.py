"""The plan of an export: its options, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import sdrt
from sdrt.common.extras import install_command, missing_modules
from sdrt.errors import ExportError, RequestError
from sdrt.onnx.engine import ort
from sdrt_export.default_settings import checked_defaults
from sdrt_export.options import EXPORTERS, ExportOptions
from sdrt_export.targets import AUTO, Target, resolve_target

if TYPE_CHECKING:
    from sdrt_export.calibrate import Calibration

__all__ = ["ExportPlan", "plan_of"]

# The packages that make the graphs, and those that make the results to compare with.
_MAKERS, _TORCH = ("onnx", "numpy", "tokenizers"), ("torch", "diffusers", "transformers")


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """The options of an export, checked before the checkpoint is opened.

    Attributes:
        target: the target.
        dtype: "fp32", "fp16" or "int8".
        exporter: a name of `EXPORTERS`.
        defaults: the model's defaults, for the manifest.
        versions: the versions of the packages that make the graphs.
        calibration: what to calibrate int8 with; None for other dtypes.
        verify: whether to compare each component with torch.
    """

    target: Target
    dtype: str
    exporter: str
    defaults: dict[str, Any]
    versions: dict[str, str]
    calibration: Calibration | None
    verify: bool


def plan_of(options: ExportOptions) -> ExportPlan:
    """Check the options that do not need the checkpoint.

    Raises:
        RequestError: one of them is wrong, or does not fit another.
        ExportError: a package is missing.
    """
    defaults = checked_defaults(options.guidance_scale, options.num_inference_steps)
    target = resolve_target(options.target, options.dtype)
    dtype = target.dtypes[0] if options.dtype == AUTO else options.dtype
    _check_exporter(options, dtype)
    if options.beside.controlnet and (options.exporter == "optimum" or dtype == "int8"):
        other = "exporter 'optimum'" if options.exporter == "optimum" else "dtype 'int8'"
        raise RequestError.advised(
            f"{other.replace(' ', ' is ')}, which makes no graphs for ControlNets",
            f"leave out --controlnet or {other}",
            argument="controlnet",
        )
    _check_adapters(options, dtype)
    if options.verify:
        _require("verify", "--verify", "verify")
    if options.exporter == "optimum":
        _require("optimum", "exporter 'optimum'", "exporter")
    return ExportPlan(
        target=target,
        dtype=dtype,
        exporter=options.exporter,
        defaults=defaults,
        versions=_versions(torch=options.verify or options.exporter == "optimum"),
        calibration=_calibration(dtype, options.calibration_prompts),
        verify=options.verify,
    )


def _check_adapters(options: ExportOptions, dtype: str) -> None:
    """Refuse IP-Adapters where there are no graphs for them, and an image encoder without one."""
    beside = options.beside
    if beside.ip_adapter and (options.exporter == "optimum" or dtype == "int8"):
        other = "exporter 'optimum'" if options.exporter == "optimum" else "dtype 'int8'"
        raise RequestError.advised(
            f"{other.replace(' ', ' is ')}, which makes no graphs for IP-Adapters",
            f"leave out --ip-adapter or {other}",
            argument="ip_adapter",
        )
    if beside.image_encoder is not None and not beside.ip_adapter:
        raise RequestError.advised(
            "image_encoder has no effect without an IP-Adapter",
            "give an IP-Adapter (--ip-adapter FILE), or leave it out",
            joint="; ",
            argument="image_encoder",
        )


def _check_exporter(options: ExportOptions, dtype: str) -> None:
    if options.exporter not in EXPORTERS:
        raise RequestError.expected(
            f"unknown exporter {options.exporter!r}", f"one of {', '.join(EXPORTERS)}", argument="exporter"
        )
    if options.exporter == "sdrt":
        return
    if options.target != "portable":
        raise RequestError.advised(
            "exporter is 'optimum', which writes standard operators only",
            f"give target 'portable', not {options.target!r}",
            argument="target",
        )
    if dtype != "fp32":
        raise RequestError.advised(
            "exporter is 'optimum', which writes fp32 only", f"leave out dtype {dtype!r}", argument="dtype"
        )
    if options.taesd is not None:
        raise RequestError.advised(
            "--taesd needs exporter 'sdrt'", "leave out --taesd or exporter 'optimum'", argument="taesd"
        )


def _calibration(dtype: str, prompts: Sequence[str] | None) -> Calibration | None:
    """The calibration for int8. None for other dtypes."""
    if dtype != "int8" and prompts is not None:
        raise RequestError.advised(
            f"calibration prompts are for dtype 'int8', not {dtype!r}",
            "leave them out, or export with dtype 'int8'",
            argument="calibration_prompts",
        )
    if dtype != "int8":
        return None
    from sdrt_export.calibrate import Calibration

    return Calibration() if prompts is None else Calibration(prompts=tuple(prompts))


def _require(extra: str, what: str, argument: str) -> None:
    """Refuse what needs modules of an extra that is not installed. Each of these extras needs those of `verify`."""
    if missing := [*dict.fromkeys((*missing_modules("verify"), *missing_modules(extra)))]:
        raise ExportError.advised(
            f"{what} needs {', '.join(missing)}; run", install_command(extra), argument=argument
        )


def _versions(*, torch: bool) -> dict[str, str]:
    """The versions of the packages that make the graphs, and with `torch` of torch and its libraries.

    sdrt's own is in its code, because a checkout on the path is not an installed distribution.
    """
    versions = {"sdrt": sdrt.__version__}
    for name in (*_MAKERS, *(_TORCH if torch else ())):
        try:
            versions[name] = version(name)
        except PackageNotFoundError as error:
            raise ExportError.advised(
                f"{name} is not installed as a distribution, so its version is unknown", "install it with pip"
            ) from error
    return versions | {"onnxruntime": ort.__version__}
