"""Where a graph's operators run. ONNX Runtime moves them to other providers with no more than a line in its log."""

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
    "check_takes_masks",
    "check_takes_weights",
    "check_target",
    "is_refusal_to_fall_back",
    "listed",
    "refusal",
    "shortfall",
    "strays",
    "tell_of_target",
    "unfit",
]

# Operators that do most of the work. Any of them on another provider counts as a fallback.
_HEAVY = frozenset(
    {"Conv", "NhwcConv", "FusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "MatMulNBits"}
    | {"QLinearConv", "MatMulIntegerToFloat"}
    | {"MultiHeadAttention", "Attention", "GroupNorm", "SkipGroupNorm", "InstanceNormalization"}
    # Little work, but on tensors that are large to copy between devices.
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


def check_takes_weights(config: SessionConfig) -> None:
    """Raise `ProviderError` if the provider of `config` compiles weights, so that adapters cannot change them."""
    if not PROVIDERS[config.name].takes_memory:
        fit = ", ".join(name for name, row in PROVIDERS.items() if row.takes_memory)
        raise ProviderError.advised(
            f"provider {config.name} compiles a model with its weights, so adapters cannot change them",
            f"use provider {fit}, or merge the adapter into the checkpoint",
            joint="; ",
            provider=config.name,
            argument="lora",
        )


def check_takes_masks(config: SessionConfig) -> None:
    """Raise `ProviderError` if the provider of `config` runs only exported graphs, which have no masks of images."""
    if not PROVIDERS[config.name].takes_memory:
        fit = ", ".join(name for name, row in PROVIDERS.items() if row.takes_memory)
        raise ProviderError.advised(
            f"provider {config.name} runs only what is exported, which has no masks of image prompts",
            f"leave out ip_adapter_masks, or use provider {fit}",
            joint="; ",
            provider=config.name,
            argument="ip_adapter_masks",
        )


def tell_of_target(target: str, name: str, config: SessionConfig, notices: Notices) -> None:
    """Tell the user if a GPU runs the model `name` though it was exported for another target."""
    row = PROVIDERS[config.name]
    if row.device and target not in ("", row.target, *row.lacks):
        notices.inform(
            f"{name} was exported for target {target}: {config.name} runs it, but a model that was exported with "
            f"--target {row.target} suits this provider better"
        )


def strays(row: Provider, report: Iterable[Any]) -> Counter[str]:
    """The operators of an assignment `report` that `row` or one of its helpers should run, but does not."""
    expected = {row.ort, *(PROVIDERS[name].ort for name in row.helpers)}
    elsewhere = [graph for graph in report if graph.ep_name not in expected]
    operators = (node.op_type for graph in elsewhere for node in graph.get_nodes())
    return Counter(operator for operator in operators if row.whole or operator in _HEAVY)


def listed(operators: Counter[str]) -> str:
    """The most frequent operators and their numbers, for messages."""
    frequent = ", ".join(f"{count} {operator}" for operator, count in operators.most_common(5))
    rest = operators.total() - sum(count for _, count in operators.most_common(5))
    return f"{frequent} and {rest} more" if rest else frequent


def is_refusal_to_fall_back(error: BaseException) -> bool:
    """Whether a session was refused because a node would have run on the CPU."""
    return "fallback to CPU EP has been explicitly disabled" in str(error)


def unfit(config: SessionConfig) -> str:
    """The remedy if a provider runs only a part of a graph."""
    target = PROVIDERS[config.name].target
    # With a graph for that target, this version of onnxruntime lacks a kernel.
    otherwise = (
        "with --target portable, or upgrade onnxruntime" if target != "portable" else "upgrade onnxruntime"
    )
    return f"export the checkpoint with --target {target}; if it was, {otherwise}"


def refusal(config: SessionConfig) -> str:
    """The remedy if a provider could not be created. Only ONNX Runtime's log has the reason."""
    options = ", ".join(f"{name}={value}" for name, value in config.provider_options.items())
    refused = f", and may have refused {options}" if options else ""
    return f"{config.name} needs {PROVIDERS[config.name].needs}{refused}; run sdrt doctor"


def shortfall(subject: Subject, problem: str, *remedies: str) -> ProviderError:
    """The error to raise if the provider runs less of the `subject` than it should."""
    fits = "; or ".join((*remedies, "allow it with allow_fallback=True (--allow-fallback)"))
    return ProviderError(f"{problem}: {fits}", **subject.facts, fits=fits)
