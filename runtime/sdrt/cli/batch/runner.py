"""Runs `sdrt batch`: reads the rows, opens the model, chooses where to make the images, and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.batch.index import LINES, TABLE
from sdrt.batch.names import check_pattern
from sdrt.batch.row import MODEL
from sdrt.cli.batch.progress import Rows
from sdrt.cli.batch.rows import read_rows
from sdrt.cli.checkpoint_options import BESIDE
from sdrt.cli.echo import echo_json
from sdrt.cli.generate.terminal import Terminal
from sdrt.cli.ray_options import check_ray
from sdrt.cli.spellings import naming_options
from sdrt.common.control_groups import share_of_cpus
from sdrt.common.extras import install_command
from sdrt.common.progress import export_reporter
from sdrt.errors import RequestError, SdrtError
from sdrt.request.table import TABLE as SETTINGS

if TYPE_CHECKING:
    from sdrt.batch.place import Place
    from sdrt.batch.run import Summary
    from sdrt.serve.worker_process import WorkerSetup

__all__ = ["Options", "run"]

_LOADING = (
    *BESIDE,
    *("provider", "provider_options", "provider_library", "threads", "revision", "allow_fallback"),
    *("vae_tiling", "low_vram", "tune"),
)
_RAY_LOG = "ray.log"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The parsed command line. `settings` are those that rows take if they have none of their own."""

    table: str
    settings: Mapping[str, Any]
    loading: Mapping[str, Any]
    model: str
    embeddings: tuple[str, ...]
    wildcards: str | None
    output: str
    name: str
    batch_size: int
    workers: int
    ray: str | None
    cpus_per_worker: float | None
    gpus_per_worker: float | None
    force: bool
    no_metadata: bool
    quiet: bool
    as_json: bool

    @classmethod
    def from_parameters(cls, table: str, given: Mapping[str, Any]) -> Options:
        """Make the options from click's parameters."""
        settings = {row.name: given[row.name] for row in SETTINGS if row.name in given}
        loading = {name: given[name] for name in _LOADING}
        others = {name: given[name] for name in given if name not in settings and name not in loading}
        return cls(table=table, settings=settings, loading=loading, **others)


def run(options: Options) -> None:
    """Make the images. Prints the index's name on stdout, or a JSON object.

    Raises:
        SdrtError: rows failed, or nothing can be made.
    """
    from sdrt.batch.run import Batch
    from sdrt.prompts.wildcard_files import WildcardFiles
    from sdrt.serve.task import FileFormat

    _check(options)
    wildcards = None if options.wildcards is None else WildcardFiles(options.wildcards)
    rows = read_rows(options.table, options.settings, wildcards)
    checks = any(row.settings.get("safety_checker", True) for row in rows if row.error is None)
    report = Rows(quiet=options.quiet)
    file_format = FileFormat(
        suffix=Path(options.name).suffix.lower().replace(".jpeg", ".jpg"), metadata=not options.no_metadata
    )
    with report.shown():
        model = _identity(options, report, checks=checks)
        batch = Batch(
            rows=rows,
            folder=Path(options.output),
            pattern=options.name,
            file_format=file_format,
            model=model,
            batch_size=options.batch_size,
            force=options.force,
            report=report,
        )
        try:
            summary = batch.run(_place(options, checks=checks))
        except BaseException:
            _say_interrupted(batch, report)
            raise
    _tell(options, summary)


def _check(options: Options) -> None:
    """Check what needs no input."""
    check_pattern(options.name)
    if options.settings["seed"] == -1:
        raise RequestError.expected(
            "seed is -1, which draws others each time",
            "a seed from which the rows' seeds count up",
            argument="seed",
        )
    check_ray("sdrt batch", vars(options), ("ray", "pyarrow"))


def _identity(options: Options, report: Rows, *, checks: bool) -> str:
    """Open the model once here, so that one that is wrong is told at once, and find out which one it is."""
    from sdrt.batch.identity import model_identity
    from sdrt.pipeline import StableDiffusionPipeline

    with (
        report.board() as board,
        StableDiffusionPipeline.from_pretrained(
            options.model,
            **options.loading,
            safety_checker=checks or None,
            notify=naming_options(report.notice),
            reporter=export_reporter(board),
        ) as pipeline,
    ):
        parts = {name: options.loading[name] for name in BESIDE} | {"embeddings": options.embeddings}
        return model_identity(pipeline.model, parts)


def _place(options: Options, *, checks: bool) -> Place:
    from sdrt.batch.local import LocalPlace

    if options.ray is None:
        return LocalPlace(_setup(options, share_of_cpus(options.workers), checks=checks), options.workers)
    from sdrt.batch.on_ray import RayPlace
    from sdrt.batch.ray_driver import RaySetup
    from sdrt.serve.on_ray.cluster import Cluster

    cpus = options.cpus_per_worker or 1.0
    cluster = Cluster(
        address=options.ray,
        workers=options.workers,
        cpus=cpus,
        gpus=options.gpus_per_worker or 0.0,
        log=str(Path(options.output, _RAY_LOG).absolute()),
    )
    return RayPlace(RaySetup(cluster=cluster, worker=_setup(options, max(1, int(cpus)), checks=checks)))


def _setup(options: Options, threads: int | None, *, checks: bool) -> WorkerSetup:
    from sdrt.serve.served_model import ServedModel
    from sdrt.serve.worker_process import WorkerSetup

    model = ServedModel(name=MODEL, source=options.model, embeddings=options.embeddings)
    loading = {**options.loading, "safety_checker": checks or None}
    return WorkerSetup(
        models={MODEL: model},
        options={**loading, "threads": options.loading["threads"] or threads},
        first=MODEL,
    )


def _say_interrupted(batch: Any, report: Rows) -> None:
    summary: Summary | None = getattr(batch, "summary", None)
    if summary is not None and summary.made:
        report.notice(
            f"{summary.made} images are made and in the index; run the same command again to make the rest"
        )


def _tell(options: Options, summary: Summary) -> None:
    index = Path(options.output, TABLE if summary.table else LINES)
    if options.as_json:
        counts = {name: getattr(summary, name) for name in ("rows", "there", "made", "failed")}
        echo_json({"index": str(index), **counts})
    else:
        terminal = Terminal(quiet=options.quiet)
        terminal.result(index)
        if not summary.table:
            terminal.notice(f"no {TABLE}, which needs pyarrow: {install_command('batch')}")
        terminal.notice(f"{summary.made} made, {summary.there} there already, {summary.failed} failed")
    if summary.failed:
        raise SdrtError.advised(
            f"{summary.failed} of {summary.rows} rows failed",
            f"{index} says why; run the same command again to try them again",
        )
