"""Runs `sdrt benchmark`: checks everything, measures one configuration after the other, writes and reports."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from sdrt.cli.benchmark.comparison import comparison_text
from sdrt.cli.benchmark.labels import label
from sdrt.cli.benchmark.profile import profile_text
from sdrt.cli.benchmark.report import report
from sdrt.cli.checkpoint_options import BESIDE
from sdrt.cli.echo import echo
from sdrt.cli.generate.outputs import plan_file, write_atomically
from sdrt.cli.generate.terminal import Terminal
from sdrt.common.progress import export_reporter
from sdrt.errors import RequestError, SdrtError

if TYPE_CHECKING:
    from sdrt.benchmark.configurations import Asked, Configuration, Rules
    from sdrt.benchmark.measure import Model
    from sdrt.pipeline import StableDiffusionPipeline

__all__ = ["run", "run_compare"]

_FLAME = "flame"
_PLOT_OPTIONS = {"latency": "--plot", "timeline": "--timeline", _FLAME: "--flame"}


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files for the record and its plots."""

    json: Path | None
    plots: Mapping[str, Path]
    """Keys are those of `sdrt.benchmark.plots.PLOTS`."""
    force: bool

    @classmethod
    def plan(cls, json_file: str | None, plots: Mapping[str, str | None], *, force: bool) -> Files:
        """Check all files before anything is measured. Raises `RequestError` for a file that cannot be written."""
        from sdrt.benchmark.plots import require_matplotlib

        named = {name: file for name, file in plots.items() if file is not None}
        paths = {
            name: plan_file(_PLOT_OPTIONS[name], file, ".png", force=force) for name, file in named.items()
        }
        record = None if json_file is None else plan_file("--json", json_file, ".json", force=force)
        every = [*paths.values(), *([record] if record else [])]
        if len({path.resolve() for path in every}) < len(every):
            raise RequestError.advised(
                "two of the files to write have the same name",
                "give each its own",
                argument="--json",
                path=every[-1],
            )
        if paths:
            require_matplotlib(_PLOT_OPTIONS[next(iter(paths))])
        return cls(json=record, plots=paths, force=force)

    def write(self, record: Mapping[str, Any], terminal: Terminal) -> None:
        """Write the record, then its plots. A file that cannot be written does not keep the others from being written.

        Raises the first failure. The others become notices.
        """
        failures: list[Exception] = []
        for path, make in self._contents(record).items():
            try:
                content = make()
                write_atomically(path, partial(_write, content), force=self.force)
                terminal.notice(f"wrote {click.format_filename(path)}")
            except Exception as error:  # a plot may fail in any way, and a record took minutes
                failures.append(error)
        for failure in failures[1:]:
            terminal.notice(f"warning: {failure}")
        if failures:
            raise failures[0]

    def _contents(self, record: Mapping[str, Any]) -> dict[Path, Callable[[], bytes]]:
        """For each file, in order, a function that makes its content."""
        found: dict[Path, Callable[[], bytes]] = {}
        if self.json is not None:
            found[self.json] = partial(_as_json, record)
        if self.plots:
            from sdrt.benchmark.plots import draw

            found |= {path: partial(draw, name, record) for name, path in self.plots.items()}
        return found


def run(
    *,
    json_file: str | None,
    plot_file: str | None,
    timeline_file: str | None,
    flame_file: str | None,
    force: bool,
    quiet: bool,
    profile: bool,
    precision: float,
    time_limit: float,
    model: str,
    random_weights: str | None,
    revision: str | None,
    **lists: Any,
) -> None:
    """Measure, and print the tables to stdout. After an interrupt, write and print what was measured."""
    from sdrt.benchmark.configurations import Rules, expand

    if lists["low_vram"] and (profile or flame_file):
        raise RequestError.advised(
            "--profile and --low-vram do not work together, because --low-vram closes the sessions",
            "leave one out",
            argument="--profile",
        )
    beside = {name: lists.pop(name) for name in BESIDE}
    rules, terminal = Rules(precision=precision, time_limit=time_limit), Terminal(quiet=quiet)
    asked = _asked(**lists)
    plots = {"latency": plot_file, "timeline": timeline_file, _FLAME: flame_file}
    files = Files.plan(json_file, plots, force=force)
    opener = _opener(model, random_weights, {"revision": revision, **beside}, asked, terminal)
    planned = expand(asked, opener)
    job = Job(planned, rules, terminal, beside=beside, profile=profile or flame_file is not None)
    try:
        job.measure()
    except BaseException:  # Ctrl-C too
        # The user needs to see the error that ended the measurements. A failure to write becomes a notice. Drawing a
        # plot can raise any exception.
        try:
            _report(job.record, files, terminal)
        except Exception as error:
            terminal.notice(f"warning: {error}")
        raise
    _report(job.record, files, terminal)


def _report(record: Mapping[str, Any], files: Files, terminal: Terminal) -> None:
    """Print the tables first, so that a full disk cannot lose them. Write the files even if printing fails."""
    if not record["measurements"]:
        return
    try:
        echo(report(record))
        if text := profile_text(record):
            echo(f"\n{text}")
    finally:
        files.write(record, terminal)


def _asked(
    *, sizes: Any, width: int | None, height: int | None, schedulers: Any, threads: Any, **rest: Any
) -> Asked:
    from sdrt.benchmark.configurations import Asked

    # False, not None: a size that runs out of memory must fail, and not be measured with low_vram.
    rest["low_vram"] = bool(rest["low_vram"])
    if sizes is not None and (width, height) != (None, None):
        fits = "--size, or --width and --height"
        raise RequestError(f"expected {fits}, got both", argument="--size", fits=fits)
    return Asked(
        sizes=sizes or ((width, height),),
        schedulers=schedulers or (None,),
        threads=threads or (None,),
        **rest,
    )


def _opener(
    model: str, random_weights: str | None, more: Mapping[str, Any], asked: Asked, terminal: Terminal
) -> Callable[[str, int | None], StableDiffusionPipeline]:
    """A function that opens the model on a provider with a number of threads, without creating sessions.

    `more` are further arguments of `from_pretrained`. Raises `RequestError` if both a model and random weights are
    given.
    """
    if random_weights is None:
        return partial(_open_model, model, more, asked, terminal)
    model_is_given = (
        click.get_current_context().get_parameter_source("model") is not click.core.ParameterSource.DEFAULT
    )
    if model_is_given or any(value not in (None, ()) for value in more.values()):
        fits = "--random-weights, or --model and its options, such as --revision and --vae"
        raise RequestError(f"expected {fits}, got both", argument="--random-weights", fits=fits)
    return partial(_open_random, random_weights, asked, terminal)


def _open_model(
    model: str,
    more: Mapping[str, Any],
    asked: Asked,
    terminal: Terminal,
    provider: str,
    threads: int | None,
) -> StableDiffusionPipeline:
    from sdrt.pipeline import StableDiffusionPipeline

    with terminal.board() as board:
        return StableDiffusionPipeline.from_pretrained(
            model,
            notify=terminal.notice,
            reporter=export_reporter(board),
            **more,
            **_session_settings(asked, provider, threads),
        )


def _open_random(
    architecture: str, asked: Asked, terminal: Terminal, provider: str, threads: int | None
) -> StableDiffusionPipeline:
    """Export the architecture with random weights, for the target that suits the provider, and open it."""
    from sdrt.common.notices import Notices
    from sdrt.model_folder.autoexport import export_random
    from sdrt.onnx.engine import settle
    from sdrt.onnx.providers import PROVIDERS, SessionConfig
    from sdrt.pipeline import StableDiffusionPipeline

    notices = Notices(terminal.notice)
    config = settle(SessionConfig(**_session_settings(asked, provider, threads)), notices)
    with terminal.board() as board:
        folder = export_random(
            architecture,
            target=PROVIDERS[config.name].target,
            notices=notices,
            reporter=export_reporter(board),
        )
    return StableDiffusionPipeline(folder, config, notify=terminal.notice)


def _session_settings(asked: Asked, provider: str, threads: int | None) -> dict[str, Any]:
    return {
        "provider": provider,
        "threads": threads,
        "allow_fallback": asked.allow_fallback,
        "vae_tiling": asked.vae_tiling,
        "low_vram": asked.low_vram,
        "provider_options": asked.provider_options,
        "provider_library": asked.provider_library,
    }


class Job:
    """Measures configurations, and keeps the record of the results."""

    def __init__(
        self,
        planned: Sequence[tuple[Configuration, StableDiffusionPipeline]],
        rules: Rules,
        terminal: Terminal,
        *,
        beside: Mapping[str, Any],
        profile: bool,
    ) -> None:
        from sdrt.benchmark.record import new_record

        self._planned, self._rules, self._terminal, self._profile = planned, rules, terminal, profile
        self._beside = beside
        self.failures: list[SdrtError] = []
        self.record = new_record(sys.argv[1:], planned[0][1].model, rules)

    def measure(self) -> None:
        """Measure all configurations, one after the other."""
        from sdrt.benchmark.machine import load_average
        from sdrt.benchmark.measure import Model
        from sdrt.benchmark.record import describe_model

        for _, pipeline in self._planned:
            # Hash the files once, here, so that no measured process does.
            pipeline.model.verify(self._terminal.notice)
        every = [configuration.settings() for configuration, _ in self._planned]
        for number, (configuration, pipeline) in enumerate(self._planned, start=1):
            name = f"{number} of {len(every)}, {label(every[number - 1], every)}"
            self._terminal.notice(f"{name}: loading on {configuration.provider}")
            model = Model.of(pipeline.model, self._beside)
            try:
                measurement = self._one(model, configuration, partial(self._say, name))
            except SdrtError as error:
                # The other configurations may still fit into memory.
                self.failures.append(error)
                self.record["failed"].append({"settings": every[number - 1], "error": str(error)})
                self._say(name, f"failed: {error}")
                continue
            self.record["measurements"].append({"model": describe_model(pipeline.model), **measurement})
            self.record["load_average"]["after"] = load_average()
            for warning in measurement["warnings"]:
                self._say(name, f"warning: {warning}")
        self.record["complete"] = not self.failures
        if self.failures:
            raise self.failures[0]

    def _say(self, name: str, text: str) -> None:
        self._terminal.notice(f"{name}: {text}")

    def _one(self, model: Model, configuration: Configuration, tell: Callable[[str], None]) -> dict[str, Any]:
        from sdrt.benchmark.runner import first_pictures, measured, profiled
        from sdrt.benchmark.summary import summarise, warnings_of

        found = measured(model, configuration, self._rules, tell)
        found["first_pictures"] = first_pictures(model, configuration, self._rules, tell)
        if self._profile:
            found["profile"] = profiled(model, configuration, self._rules, tell)
        return {
            "settings": configuration.settings(),
            "evaluations": configuration.evaluations,
            "statistics": summarise(found, self._rules.confidence),
            "warnings": warnings_of(found),
            **found,
        }


def run_compare(names: Sequence[str], *, json_file: str | None, force: bool, quiet: bool) -> None:
    """Compare every other record with the first, and print the ratios to stdout."""
    from sdrt.benchmark.compare import compare
    from sdrt.benchmark.record import read_record

    terminal = Terminal(quiet=quiet)
    files = Files.plan(json_file, {}, force=force)
    records = [read_record(Path(name)) for name in names]
    for name, record in zip(names, records, strict=True):
        if not record.get("complete"):
            failed = len(record.get("failed") or ())
            run = f"a run in which {failed} configurations failed" if failed else "an interrupted run"
            terminal.notice(f"{name} is from {run}: it has only what was measured")
    comparisons = [compare(records[0], record) for record in records[1:]]
    texts = [
        comparison_text((names[0], name), found, records[0]["rules"]["confidence"])
        for name, found in zip(names[1:], comparisons, strict=True)
    ]
    echo("\n\n".join(texts))
    if files.json is not None:
        entries = [
            {"first": names[0], "second": name, **asdict(found)}
            for name, found in zip(names[1:], comparisons, strict=True)
        ]
        files.write(
            {"format": "sdrt-benchmark-comparison", "format_version": 1, "comparisons": entries}, terminal
        )


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _as_json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False, indent=1) + "\n").encode()
