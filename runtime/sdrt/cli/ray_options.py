"""The option `--ray` of `sdrt batch` and `sdrt serve`, and the options that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from sdrt.cli.settings import together
from sdrt.common.extras import install_command
from sdrt.errors import ProviderError, RequestError

if TYPE_CHECKING:
    from sdrt.serve.on_ray.replica import RaySetup
    from sdrt.serve.options import ServeOptions

__all__ = [
    "check_ray",
    "check_workers",
    "cpus_per_worker_option",
    "gpus_per_worker_option",
    "ray_setup",
    "serve_ray_options",
]

_AUTO = "auto"
_MOST = 4
"""The most workers of a cluster, if the user does not say how many."""
_WITH_RAY = ("min_workers", "max_workers", "models_per_worker", "cpus_per_worker", "gpus_per_worker")
"""The options that have no effect without `--ray`."""

cpus_per_worker_option = click.option(
    "--cpus-per-worker",
    type=click.FloatRange(0, min_open=True),
    help="With --ray: CPUs of a node that each worker takes, also fractions.  [default: 1]",
)
gpus_per_worker_option = click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0),
    help="With --ray: GPUs of a node that each worker takes, also fractions.  [default: 0]",
)
_SERVE = (
    click.option(
        "--ray",
        metavar="[ADDRESS|local]",
        is_flag=False,
        flag_value=_AUTO,
        help="Run the workers on the Ray cluster at this address, on the one that runs on this machine (--ray alone), "
        "or on this machine as a cluster of its own (local).",
    ),
    click.option(
        "--min-workers",
        type=click.IntRange(0, 4096),
        help="With --ray: workers that stay when no job waits.  [default: 1]",
    ),
    click.option(
        "--max-workers",
        type=click.IntRange(1, 4096),
        help=f"With --ray: workers that Ray may start when jobs wait.  [default: {_MOST}, with local at most the CPUs]",
    ),
    click.option(
        "--models-per-worker",
        type=click.IntRange(1, 4096),
        help="With --ray: models that a worker keeps open. For another, it closes the one that it used longest ago.  "
        "[default: 3]",
    ),
    cpus_per_worker_option,
    gpus_per_worker_option,
)
serve_ray_options = together(*_SERVE)
"""Adds the options of `sdrt serve` to a command."""


def check_ray(
    command: str, given: Mapping[str, Any], modules: Sequence[str], *, refused: Sequence[str] = ()
) -> None:
    """Check the options of a command that has `--ray`.

    Args:
        command: the command, for messages.
        given: the options by name.
        modules: what `--ray` imports.
        refused: the options that have no effect with `--ray`.

    Raises:
        RequestError: an option has no effect, because `--ray` is given or is not.
        ProviderError: a module is not installed.
    """
    if given["ray"] is None:
        for name in _WITH_RAY:
            if given.get(name) is not None:
                raise RequestError.advised(f"{name} has no effect without --ray", "give both", argument=name)
        return
    for name in refused:
        if given[name] is not None:
            raise RequestError.advised(f"{name} has no effect with --ray", "leave it out", argument=name)
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ProviderError.advised(
            f"{command} --ray needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed",
            install_command("ray"),
        )


def check_workers(given: Mapping[str, Any]) -> None:
    """Check the options of `sdrt serve --ray` together.

    Raises:
        RequestError: `min_workers` is more than `max_workers`, or the workers would have different providers.
    """
    least, most = _least_and_most(given)
    if least > most:
        raise RequestError.expected(
            f"min_workers is {least}", f"at most max_workers, which is {most}", argument="min_workers"
        )
    if len(given["providers"]) > 1:
        raise RequestError.expected(
            "provider is given several times", "one with --ray, for all workers", argument="provider"
        )


def ray_setup(options: ServeOptions, given: Mapping[str, Any], port: int) -> RaySetup:
    """What the deployment of `sdrt serve --ray` needs to know."""
    import socket

    from sdrt.serve.on_ray.cluster import Cluster
    from sdrt.serve.on_ray.replica import RaySetup
    from sdrt.serve.on_ray.workers import new_log

    least, most = _least_and_most(given)
    return RaySetup(
        cluster=Cluster(
            address=given["ray"],
            workers=most,
            cpus=given["cpus_per_worker"] or 1.0,
            gpus=given["gpus_per_worker"] or 0.0,
            log=new_log(),
        ),
        worker=options.setups()[0],
        # So a server that starts again takes over what a killed one left behind.
        app=f"sdrt-{socket.gethostname()}-{port}",
        least=least,
        models=given["models_per_worker"] or 3,
        longest=options.limits.timeout or 3600.0,
    )


def _least_and_most(given: Mapping[str, Any]) -> tuple[int, int]:
    """The fewest and the most workers."""
    least = 1 if given["min_workers"] is None else given["min_workers"]
    usual = _usual_most(given["ray"], given["cpus_per_worker"] or 1.0)
    return least, given["max_workers"] or max(least, usual)


def _usual_most(address: str, cpus: float) -> int:
    from sdrt.common.control_groups import usable_cpus
    from sdrt.serve.on_ray.cluster import LOCAL

    if address != LOCAL:
        return _MOST
    return max(1, min(_MOST, int((usable_cpus() or 1) / cpus)))
