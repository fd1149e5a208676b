"""`sdrt serve`: images over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdrt.cli import completers
from sdrt.cli.echo import echo, echo_error
from sdrt.cli.group import debug_option
from sdrt.cli.param_types import Memory
from sdrt.cli.provider_options import RUN_OPTIONS, tune_option
from sdrt.cli.ray_options import check_ray, check_workers, ray_setup, serve_ray_options
from sdrt.cli.settings import CONTEXT, together
from sdrt.common.extras import install_command, missing_modules
from sdrt.errors import ProviderError, RequestError
from sdrt.model_folder.embedded import DEFAULT_MODEL

if TYPE_CHECKING:
    from sdrt.serve.keys import Keys
    from sdrt.serve.options import ServeOptions
    from sdrt.serve.served_model import ServedModel
    from sdrt.serve.workers import Workers

__all__ = ["serve"]

_DEFAULT_HOST = "127.0.0.1"
_DEFAULT_PORT = 7860


@click.command(context_settings=CONTEXT)
@click.option(
    "-m",
    "--model",
    "models",
    metavar="[NAME=]MODEL",
    multiple=True,
    default=(DEFAULT_MODEL,),
    show_default=True,
    shell_complete=completers.models,
    help="A model folder, checkpoint, hub id or embedded model, and the name by which requests choose it. Repeat the "
    "option for several. The first is the default, and the others are opened when they are asked for.",
)
@click.option("--host", default=_DEFAULT_HOST, show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_DEFAULT_PORT,
    show_default=True,
    help="The port to listen on, 0 for any. If it is taken, the error names the next free one.",
)
@click.option(
    "--provider",
    "--device",
    "providers",
    multiple=True,
    shell_complete=completers.providers,
    help="Execution provider: auto, cpu, cuda, cuda:1, tensorrt, openvino or coreml. Repeat the option for a worker on "
    "each device.  [default: auto]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that make images, for each provider. On the CPU they share its cores, and the weights of a tuned "
    "model.  [default: 1]",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads of each worker.  [default: the cores, divided among the workers]",
)
@together(serve_ray_options, *RUN_OPTIONS, tune_option)
@click.option(
    "--lora-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of LoRAs, which requests choose by name, also as <lora:NAME:0.8> in prompts.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="KEY",
    envvar="SDRT_API_KEY",
    help="A key that requests must have. Repeat the option for several. Others on this machine can see it: better "
    "set SDRT_API_KEY, or use --key-file.",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of keys, with a line of NAME:sha256:HASH for each. If :priority follows, jobs of the key may go "
    "before those of others.",
)
@click.option("--new-key", metavar="NAME", help="Print a new key and its line for --key-file instead.")
@click.option(
    "--cors",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this site use the server, such as https://example.org. Repeat the option for several.",
)
@click.option(
    "--host-name",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Another name of this server that requests may use, if it needs no key.",
)
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Believe what the proxy at this IP address or network says about the scheme and address of a client "
    "(X-Forwarded-Proto, X-Forwarded-For). Repeat the option for several.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="How many jobs may wait. Those above get the status 429.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="How many waiting jobs that differ in prompt and seed alone may be made at once. The server measures whether "
    "that is faster.",
)
@click.option(
    "--max-memory",
    type=Memory(),
    metavar="SIZE",
    help="Let go of the models that were used longest ago when a worker takes more, such as 6GB.",
)
@click.option(
    "--max-steps", type=click.IntRange(1, 1000), default=150, show_default=True, help="Steps of an image."
)
@click.option(
    "--max-images", type=click.IntRange(1, 1024), default=16, show_default=True, help="Images of a request."
)
@click.option(
    "--max-pixels",
    type=click.IntRange(64, 2**30),
    default=2048 * 2048,
    show_default=True,
    help="Pixels of an image.",
)
@click.option(
    "--max-uploads",
    type=Memory(),
    metavar="SIZE",
    default=256 * 2**20,
    help="The most that the server holds from all clients at once: bodies, and the images of jobs. A body may have "
    "half of it, and at most 64 MiB.  [default: 256 MiB]",
)
@click.option(
    "--silence",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    help="Seconds within which the head of a request must arrive, and then each further part of its body.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=3600.0,
    show_default=True,
    help="Seconds that a job may take.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that running jobs may still take after Ctrl-C or SIGTERM.",
)
@click.option("--lazy", is_flag=True, help="Open the first model when it is asked for, not at the start.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@debug_option
def serve(new_key: str | None, **options: Any) -> None:
    """Make images for programs and browsers, over HTTP.

    The server answers as OpenAI's Images API (/v1) and the API of A1111's web UI (/sdapi/v1) do. Its own API (/jobs)
    has events, previews and cancelling, and there is a page at /.

    \b
    sdrt serve
    sdrt serve -m sd15=model/ -m sdxl=sdxl/ --provider cuda
    SDRT_API_KEY=$(cat key) sdrt serve --host 0.0.0.0
    """
    if new_key is not None:
        _print_key(new_key)
        return
    if missing := missing_modules("serve"):
        raise ProviderError.advised(
            f"sdrt serve needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            install_command("serve"),
        )
    check_ray("sdrt serve", options, ("ray", "grpc"), refused=("workers", "max_memory"))
    if options["ray"] is not None:
        check_workers(options)
    _serve(**options)


def _print_key(name: str) -> None:
    from sdrt.serve.keys import new_key

    key, line = new_key(name)
    echo(f"key, for the client:  {key}")
    echo(f"line of --key-file:   {line}")


def _serve(*, host: str, port: int, log_format: str, quiet: bool, **options: Any) -> None:
    from sdrt.serve.logs import set_up
    from sdrt.serve.options import is_loopback

    made = _options(**options)
    if not made.keys and not is_loopback(host):
        raise RequestError(
            f"host is {host}, which other machines reach, and there is no key: set SDRT_API_KEY or give --key-file "
            f"(sdrt serve --new-key NAME makes one), or listen on {_DEFAULT_HOST}",
            argument="host",
        )
    set_up(as_json=log_format == "json", quiet=quiet)
    from sdrt.serve.sockets import bound_socket

    listening = bound_socket(host, port)
    own = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    # Workers open the model while this process imports FastAPI, which takes as long.
    with _workers(made, options, own) as workers:
        from sdrt.serve.server import serve

        serve(made, listening, workers, lambda: echo_error(f"http://{shown}:{own}  (Ctrl-C ends)"))


def _workers(made: ServeOptions, given: Mapping[str, Any], port: int) -> Workers:
    if given["ray"] is None:
        from sdrt.serve.worker import LocalWorkers

        return LocalWorkers(made.setups())
    from sdrt.serve.on_ray.workers import RayWorkers

    return RayWorkers(ray_setup(made, given, port))


def _options(
    *,
    models: Sequence[str],
    providers: Sequence[str],
    workers: int | None,
    threads: int | None,
    provider_options: Mapping[str, Any],
    provider_library: str | None,
    allow_fallback: bool,
    vae_tiling: bool | None,
    low_vram: bool | None,
    tune: bool | None,
    api_keys: Sequence[str],
    key_file: Path | None,
    lazy: bool,
    origins: Sequence[str],
    hosts: Sequence[str],
    proxies: Sequence[str],
    lora_dir: Path | None,
    max_batch: int,
    max_memory: int | None,
    **others: Any,
) -> ServeOptions:
    from sdrt.common.control_groups import share_of_cpus
    from sdrt.serve.options import Limits, ServeOptions, check_proxies

    each = [provider for provider in providers or ("auto",) for _ in range(workers or 1)]
    is_elsewhere = others["ray"] is not None
    threads = threads or (
        max(1, int(others["cpus_per_worker"] or 1)) if is_elsewhere else share_of_cpus(len(each))
    )
    return ServeOptions(
        models=_models(models),
        providers=each,
        loading={
            "provider_options": dict(provider_options) or None,
            "provider_library": provider_library,
            "threads": threads,
            "allow_fallback": allow_fallback,
            "vae_tiling": vae_tiling,
            "low_vram": low_vram,
            "tune": tune,
        },
        lora_dir=lora_dir,
        keys=_keys(api_keys, key_file),
        origins=origins,
        hosts=hosts,
        proxies=check_proxies(proxies),
        preload=not lazy,
        max_batch=max_batch,
        max_memory=max_memory,
        limits=Limits(
            queue=others["max_queue"],
            steps=others["max_steps"],
            images=others["max_images"],
            pixels=others["max_pixels"],
            uploads=others["max_uploads"],
            silence=others["silence"],
            timeout=others["timeout"],
            grace=others["grace"],
        ),
    )


def _keys(given: Sequence[str], file: Path | None) -> Keys:
    from sdrt.serve.keys import Keys, read_keys

    keys = Keys.of(given)
    return keys if file is None else keys + read_keys(file)


def _models(given: Sequence[str]) -> list[ServedModel]:
    from sdrt.serve.served_model import ServedModel

    found: dict[str, ServedModel] = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals:
            name, source = _usual_name(text), text
        if not name or not source:
            raise RequestError.expected(f"--model is {text!r}", "MODEL or NAME=MODEL", argument="model")
        if name in found:
            raise RequestError.advised(
                f"two models are called {name!r}", "name them with --model NAME=MODEL", argument="model"
            )
        found[name] = ServedModel(name=name, source=source)
    return list(found.values())


def _usual_name(source: str) -> str:
    """The name of a folder or hub id, or of a file without its suffix."""
    from sdrt.model_folder.folder import tail

    name = tail(source)
    return Path(name).stem if name.endswith((".safetensors", ".ckpt")) else name
