"""Whether a session runs where it was asked to: ONNX Runtime replaces providers with no more than a warning."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdrt.common.notices import Notices
from sdrt.onnx.engine import ort, tells_placement
from sdrt.onnx.error_messages import Subject
from sdrt.onnx.placement import listed, refusal, shortfall, strays, unfit
from sdrt.onnx.providers import PROVIDERS, SessionConfig

__all__ = ["read_elsewhere", "require_provider", "told_placement"]


_HOST = "Cpu"


def require_provider(session: Any, subject: Subject, config: SessionConfig, notices: Notices) -> None:
    """Raise `ProviderError` if the provider runs less than it should. Warn instead if `config` allows that."""
    problem, remedy = _problem(session, subject, config, notices)
    if problem and not config.allow_fallback:
        raise shortfall(subject, problem, remedy)
    if problem:
        notices.warn(problem)


def told_placement(session: Any) -> dict[str, dict[str, int]] | None:
    """How many nodes of each operator each provider runs. None if ONNX Runtime does not report it."""
    report = getattr(session, "get_provider_graph_assignment_info", None)
    if report is None:
        return None
    placed: dict[str, Counter[str]] = {}
    for graph in report():
        counts = placed.setdefault(graph.ep_name, Counter())
        counts.update(node.op_type for node in graph.get_nodes())
    return {provider: dict(counts.most_common()) for provider, counts in placed.items()}


def read_elsewhere(session: Any, device: str | None) -> frozenset[str]:
    """The inputs that operators on the CPU read, though the provider has memory of its own, that of `device`.

    Empty if ONNX Runtime does not report it, as before version 1.24.
    """
    memory_infos = getattr(session, "get_input_memory_infos", None)
    if memory_infos is None or device in (None, "cpu"):
        return frozenset()
    inputs = zip(session.get_inputs(), memory_infos(), strict=True)
    return frozenset(one.name for one, memory in inputs if memory.name == _HOST)


def _problem(session: Any, subject: Subject, config: SessionConfig, notices: Notices) -> tuple[str, str]:
    """The problem and its remedy. Two empty strings if there is none."""
    name, provider, row = subject.name, subject.provider, PROVIDERS[subject.provider]
    active = session.get_providers()
    if active[0] != row.ort:
        return f"{name} runs on {', '.join(active)} instead of {provider}", refusal(config)
    if provider == "cpu":
        return "", ""
    if tells_placement():
        elsewhere = strays(row, session.get_provider_graph_assignment_info())
        problem = f"{name} runs on {provider} only in part, with {listed(elsewhere)} on other providers"
        return (problem, unfit(config)) if elsewhere else ("", "")
    if not row.whole or config.allow_fallback:
        notices.warn(
            f"{name}: onnxruntime {ort.__version__} does not report which operators run on "
            f"{provider} and which on the CPU; upgrade it to find out"
        )
    return "", ""
