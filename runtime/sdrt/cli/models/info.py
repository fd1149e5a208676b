"""`sdrt info`: shows how an image was made, or what a model holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdrt.cli.completers import images_and_models
from sdrt.cli.echo import echo, echo_error, echo_json
from sdrt.cli.generate.streams import STDIN, image_or_stdin
from sdrt.cli.group import debug_option
from sdrt.cli.settings import CONTEXT
from sdrt.errors import ModelNotFoundError, RequestError

if TYPE_CHECKING:
    from sdrt.images.metadata import ImageMetadata

__all__ = ["info"]


@click.command(context_settings=CONTEXT)
@click.argument("path", metavar="FILE|MODEL", shell_complete=images_and_models)
@click.option("--verify", is_flag=True, help="Read every file of a model folder now and check its hash.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
def info(path: str, verify: bool, as_json: bool) -> None:
    """Show how an image was made, or what a model holds.

    FILE is an image from `sdrt generate` or another program, a text file with the same text, or - for standard input.
    For a safetensors file, sdrt says what it contains, such as a checkpoint, a LoRA or a VAE.
    MODEL is a model folder, a checkpoint in diffusers' layout, or the name of an embedded model.
    """
    from sdrt.model_folder.embedded import embedded_path
    from sdrt.model_folder.resolve import holds_torch_checkpoint

    target = Path(path)
    is_ours = path != STDIN and embedded_path(path) is not None
    is_file = path == STDIN or (target.exists() and not target.is_dir())  # or a pipe
    is_checkpoint = target.is_dir() and holds_torch_checkpoint(target)
    if not is_ours and (is_file or is_checkpoint):
        if verify:
            what = "a file" if is_file else "a checkpoint, which has no hashes"
            raise RequestError.expected(
                f"--verify: {path} is {what}", "a model folder", argument="--verify", path=target
            )
        read = folder_info if is_checkpoint else weights_info if _is_weights(target) else image_info
        about, text = read(target)
    else:
        about, text = model_info(path, verify=verify)
    if as_json:
        echo_json(about)
    else:
        echo(text)


def _is_weights(path: Path) -> bool:
    """Whether a file has the suffix of a file of weights, or is a safetensors file with another suffix."""
    from sdrt.model_folder.file_kind import WEIGHTS, is_safetensors

    return str(path) != STDIN and (path.suffix.lower() in WEIGHTS or is_safetensors(path))


def check_exists(path: str) -> None:
    """Raise `ModelNotFoundError` if there is nothing at `path`, which may be meant for a file or a folder."""
    from sdrt.model_folder.folder import exists, expand

    if not exists(expand(path)):
        raise ModelNotFoundError.advised(
            f"there is no file or model folder {path}",
            "check the path",
            argument="FILE|MODEL",
            path=Path(path),
        )


def weights_info(path: Path) -> tuple[dict[str, Any], str]:
    """What a file of weights holds, as JSON and as text. Of a checkpoint also what it runs with."""
    from sdrt.cli.models.checkpoint import checkpoint_summary, render_checkpoint
    from sdrt.common.safetensors_file import read_header
    from sdrt.model_folder.file_kind import CHECKPOINT, kind_of
    from sdrt.model_folder.manifest import readable

    with readable(path):
        file = read_header(path)
    kind = kind_of(file)
    about = {
        "file": str(path),
        "kind": kind.what if kind else None,
        "base": (kind.base or None) if kind else None,
        "tensors": len(file.tensors),
    }
    count = len(file.tensors)
    text = f"{kind or 'an unknown kind of weights'}, in {count} tensor{'' if count == 1 else 's'}"
    if kind is None or kind.what != CHECKPOINT:
        return about, text
    summary = checkpoint_summary(path, echo_error)
    return about | summary, render_checkpoint(text, summary)


def folder_info(path: Path) -> tuple[dict[str, Any], str]:
    """What a checkpoint in diffusers' layout runs with, as JSON and as text."""
    from sdrt.cli.models.checkpoint import FOLDER, checkpoint_summary, render_checkpoint

    summary = checkpoint_summary(path, echo_error)
    return {"path": str(path), "kind": FOLDER, **summary}, render_checkpoint(FOLDER, summary)


def image_info(path: Path) -> tuple[dict[str, Any], str]:
    """The metadata of an image, as JSON and as text."""
    from sdrt.images.metadata import read_metadata

    found = read_metadata(image_or_stdin("FILE", str(path)))
    if not found.text:
        raise RequestError.expected(
            f"{path} does not say how it was made", "an image from sdrt without --no-metadata", path=path
        )
    width, height = found.size if any(found.size) else (None, None)
    return {
        "file": str(path),
        "format": found.format,
        "width": width,
        "height": height,
        "program": found.program or None,
        "prompt": found.prompt,
        "negative_prompt": found.negative_prompt,
        "settings": dict(found.settings),
        "parameters": found.text,
    }, _shown(found)


def _shown(found: ImageMetadata) -> str:
    """The text in the file. JSON of another program is shown in A1111's form, with the program's name above it."""
    from sdrt.images.parameters import Parameters

    # A prompt may begin with a brace, too. In A1111's form, the line of settings shows that it is one.
    is_a1111 = Parameters.parse(found.text).settings.items() >= found.settings.items()
    if is_a1111 or not found.settings:
        return found.text
    return f"{found.program} made this image.\n\n{found.parameters}"


def model_info(model: str, *, verify: bool) -> tuple[dict[str, Any], str]:
    """The contents of a model folder, as JSON and as text. With `verify`, a wrong file raises `IntegrityError`."""
    from sdrt.cli.models.summary import render, summarise, verify_now
    from sdrt.model_folder.embedded import embedded_path
    from sdrt.model_folder.resolve import open_local

    if embedded_path(model) is None:
        check_exists(model)
    folder = open_local(model)
    if verify:
        verify_now(folder, echo_error)
    summary = summarise(folder, verified=verify)
    return summary, render(summary)
