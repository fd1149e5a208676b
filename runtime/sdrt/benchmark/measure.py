"""Measures one configuration in this process: loading, the first generation, warming up, then as the rules say."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sdrt.benchmark.configurations import Configuration, Rules
from sdrt.benchmark.machine import Others, clocks
from sdrt.benchmark.memory import peak_resident
from sdrt.benchmark.stats import median_interval
from sdrt.benchmark.timed_generation import Generation, generator
from sdrt.common.notices import Notify
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.model import Model as OpenedModel
from sdrt.model_folder.resolve import open_again
from sdrt.model_folder.source import Beside
from sdrt.onnx.providers import PROVIDERS, SessionConfig

__all__ = ["Model", "measure", "open_pipeline", "repeat", "session_config", "warm_up"]

Generate = Callable[[], Generation]


class Model(NamedTuple):
    """A model that another process opens again: its path, its name, and what is given beside its checkpoint."""

    path: str
    name: str
    beside: Mapping[str, Any] = {}

    @classmethod
    def of(cls, opened: OpenedModel, beside: Mapping[str, Any]) -> Model:
        """The model `opened`, with what the user gave `beside` it. An exported model contains that already."""
        more = {} if isinstance(opened, ModelFolder) else {name: one for name, one in beside.items() if one}
        return cls(str(opened.path.absolute()), opened.name, more)

    def open(self, target: str) -> OpenedModel:
        """Open it, with graphs for `target`."""
        return open_again(Path(self.path), self.name, target, Beside(**self.beside))


def measure(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> dict[str, Any]:
    """Measure a configuration, and return everything that this process can measure, for the record.

    `tell` receives progress messages. Raises the errors of the pipeline.
    """
    load_began = time.perf_counter()
    pipeline = open_pipeline(model, configuration, tell)
    pipeline.load()
    load = time.perf_counter() - load_began
    generate = generator(pipeline, configuration)
    tell("first generation")
    first = generate()
    tell("warming up")
    now = time.perf_counter()
    warmup = warm_up(generate, first, rules, now + rules.time_limit / 2)
    tell("measuring")
    # Read the clocks after warming up: before, a GPU runs at its idle clock.
    others, before, during = Others(), clocks(), []

    def watched() -> Generation:
        made = generate()
        during.append(clocks())
        return made

    kept, ended = repeat(watched, rules, now + rules.time_limit)
    return {
        "load": load,
        "first_generation": _told(first),
        "warmup": warmup,
        "generations": [_told(one) for one in kept],
        "ended_by": ended,
        "timeline": _middle(kept).spans,
        "placement": {graph.name: graph.placement() for graph in pipeline.graphs},
        "rescues": pipeline.float32_retries,
        "peak_resident": peak_resident(),
        "other_programs": others.share(),
        "clocks": {"before": before, "during": during, "after": clocks()},
    }


def open_pipeline(
    model: Model, configuration: Configuration, notify: Notify, profile: str | None = None
) -> Any:
    """Open the pipeline of a configuration, without creating sessions."""
    # Imported here, so that loading includes the import of ONNX Runtime, as in `sdrt generate`.
    from sdrt.common.notices import Notices
    from sdrt.onnx.engine import settle
    from sdrt.pipeline import StableDiffusionPipeline

    config = settle(session_config(configuration, profile), Notices(notify))
    opened = model.open(PROVIDERS[config.name].target)
    return StableDiffusionPipeline(opened, config, notify=notify)


def session_config(configuration: Configuration, profile: str | None = None) -> SessionConfig:
    """The settings of a configuration's sessions."""
    return SessionConfig(
        provider=configuration.provider,
        threads=configuration.threads,
        allow_fallback=configuration.allow_fallback,
        vae_tiling=configuration.vae_tiling,
        low_vram=configuration.low_vram,
        provider_options=configuration.provider_options,
        provider_library=configuration.provider_library,
        profile=profile,
    )


def warm_up(generate: Generate, first: Generation, rules: Rules, deadline: float) -> dict[str, Any]:
    """Generate until two consecutive generations agree, or as long as the rules allow. Returns how it ended."""
    typical = [first.typical]
    while True:
        typical.append(generate().typical)
        reason = _warm(typical, rules, deadline)
        if reason is not None:
            return {"generations": len(typical), "ended_by": reason, "typical_steps": typical}


def _warm(typical: Sequence[float], rules: Rules, deadline: float) -> str | None:
    before, after = typical[-2:]
    if abs(after - before) <= rules.tolerance * min(before, after):
        return "agreement"
    if time.perf_counter() >= deadline:
        return "time limit"
    return "most generations" if len(typical) >= rules.most_warmup else None


def repeat(generate: Generate, rules: Rules, deadline: float) -> tuple[list[Generation], str]:
    """Generate until the median step is precise enough, or the time is over. Returns the generations and the reason."""
    kept: list[Generation] = []
    while True:
        kept.append(generate())
        if len(kept) >= rules.least_generations and _is_known(kept, rules):
            return kept, "precision"
        if time.perf_counter() >= deadline:
            return kept, "time limit"


def _is_known(kept: Sequence[Generation], rules: Rules) -> bool:
    steps = [seconds for one in kept for seconds in one.steady]
    interval = median_interval(steps, rules.confidence)
    return interval is not None and interval.width <= rules.precision * statistics.median(steps)


def _told(generation: Generation) -> dict[str, Any]:
    told = asdict(generation)
    del told["spans"]
    return told


def _middle(kept: Sequence[Generation]) -> Generation:
    """The generation with the median time."""
    return sorted(kept, key=lambda one: one.total)[len(kept) // 2]
