"""Where ONNX Runtime put a graph's operators, which it moves to another provider with only a line in its log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdrt.common.notices import Notices
from sdrt.errors import ProviderError, UnsupportedModelError
from sdrt.onnx.error_messages import Subject
from sdrt.onnx.providers import PROVIDERS, Provider, SessionConfig

__all__ = [
    "check_target",
    "is_refusal_to_fall_back",
    "listed",
    "refusal",
    "shortfall",
    "strays",
    "tell_of_target",
    "unfit",
]

# Operators that carry the work: one of these on another provider than the one asked for is a fallback.
_HEAVY = frozenset(
    {"Conv", "NhwcConv", "FusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "MatMulNBits"}
    | {"QLinearConv", "MatMulIntegerToFloat"}
    | {"MultiHeadAttention", "Attention", "GroupNorm", "SkipGroupNorm", "InstanceNormalization"}
    # Little work, on tensors that are large to send there and back.
    | {"Resize", "BiasAdd", "BiasSplitGelu", "BiasGelu", "SkipLayerNormalization", "LayerNormalization"}
    | {"Softmax", "Transpose", "QuickGelu", "Gelu", "Sigmoid"}
)


def check_target(target: str, path: Path, config: SessionConfig) -> None:
    """Raise `UnsupportedModelError` if the provider of `config` lacks the operators of a `target`.

    `path` is the model's, for the message; `target` is empty for a model that does not name one.
    """
    row = PROVIDERS[config.name]
    if target in row.lacks:
        fit = ", ".join(name for name, other in PROVIDERS.items() if target == other.target)
        raise UnsupportedModelError(
            f"{path} was exported for target {target}, whose operators provider {config.name} lacks: run it with "
            f"provider {fit}, or export the checkpoint with --target {row.target}",
            path=path,
            provider=config.name,
            fits=f"provider {fit}, or a model that was exported with --target {row.target}",
        )


def tell_of_target(target: str, name: str, config: SessionConfig, notices: Notices) -> None:
    """Tell the user if a GPU runs the model `name`, which was exported for another target."""
    row = PROVIDERS[config.name]
    if row.device and target not in ("", row.target, *row.lacks):
        notices.inform(
            f"{name} was exported for target {target}: {config.name} runs it, and --target {row.target} is made "
            "for it"
        )


def strays(row: Provider, report: Iterable[Any]) -> Counter[str]:
    """Operators of an assignment `report` that neither `row` nor a helper took and that it should have taken."""
    expected = {row.ort, *(PROVIDERS[name].ort for name in row.helpers)}
    elsewhere = [graph for graph in report if graph.ep_name not in expected]
    operators = (node.op_type for graph in elsewhere for node in graph.get_nodes())
    return Counter(operator for operator in operators if row.whole or operator in _HEAVY)


def listed(operators: Counter[str]) -> str:
    """For messages: how many, and the most frequent."""
    frequent = ", ".join(f"{count} {operator}" for operator, count in operators.most_common(5))
    rest = operators.total() - sum(count for _, count in operators.most_common(5))
    return f"{frequent} and {rest} more" if rest else frequent


def is_refusal_to_fall_back(error: BaseException) -> bool:
    """Whether a session was not made because a node would have landed on the CPU, and must not."""
    return "fallback to CPU EP has been explicitly disabled" in str(error)


def unfit(config: SessionConfig) -> str:
    """The remedy where a provider took a part of a graph."""
    target = PROVIDERS[config.name].target
    # Whom it happens to with a graph for that target: the version of onnxruntime has no kernel of it.
    otherwise = (
        "with --target portable, or upgrade onnxruntime" if target != "portable" else "upgrade onnxruntime"
    )
    return f"export the checkpoint with --target {target}; if it was, {otherwise}"


def refusal(config: SessionConfig) -> str:
    """The remedy where a provider was not made, of which only a log tells the reason."""
    options = ", ".join(f"{name}={value}" for name, value in config.provider_options.items())
    refused = f", and may have refused {options}" if options else ""
    return f"{config.name} needs {PROVIDERS[config.name].needs}{refused}; run sdrt doctor"


def shortfall(subject: Subject, problem: str, *remedies: str) -> ProviderError:
    """The error to raise when the provider took less of the `subject` than it should."""
    fits = "; or ".join((*remedies, "allow it with allow_fallback=True (--allow-fallback)"))
    return ProviderError(f"{problem}: {fits}", **subject.facts, fits=fits)
