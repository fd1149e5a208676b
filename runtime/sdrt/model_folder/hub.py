"""Downloads models from the Hugging Face hub, and turns its errors into messages for the user."""

from __future__ import annotations

import errno
import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sdrt.errors import IntegrityError, ModelNotFoundError
from sdrt.families import FAMILIES
from sdrt.model_folder.checker import SAFETY_CHECKER
from sdrt.model_folder.contents import GRAPH
from sdrt.model_folder.embedded import embedded_names
from sdrt.model_folder.folder import TAESD_DECODER
from sdrt.model_folder.index import known_family
from sdrt.model_folder.manifest import MANIFEST_NAME
from sdrt.model_folder.model import CONTROLNET, IMAGE_ENCODER, IP_ADAPTER
from sdrt.model_folder.places import names_file
from sdrt.onnx.graph_file import read_graph

__all__ = ["check_id", "check_id_of", "download", "download_checkpoint", "download_component", "hub_errors"]

# A full disk or quota; a cache that cannot be written to, or is not a folder.
_OF_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
)
# Other copies of the weights. sdrt takes the first kind that there is if the weights in full precision are missing.
_VARIANTS = ["*fp16*", "*bf16*", "*non_ema*"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


_ADDED = (f"{CONTROLNET}*", f"{IP_ADAPTER}*", IMAGE_ENCODER)
_KINDS = ("controlled*.onnx", "prompted*.onnx")


def _patterns(safety_checker: bool) -> list[str]:
    """Patterns for configs, tokenizers and ONNX graphs, but not for torch weights.

    Of a torch checkpoint they match only a few kilobytes.
    """
    more = [TAESD_DECODER, *([SAFETY_CHECKER] if safety_checker else [])]
    graphs = dict.fromkeys([name for family in FAMILIES for name in family.components] + more)
    vaes = dict.fromkeys(name for family in FAMILIES for name in (family.vae.decoder, family.vae.encoder))
    tokenizers = dict.fromkeys(name for family in FAMILIES for name in family.tokenizers)
    return [
        "model_index.json",
        "sdrt.json",
        *(f"{name}/*" for name in tokenizers),
        *(f"{name}/*.json" for name in ("scheduler", "low_res_scheduler", "feature_extractor")),
        *(f"{name}/config.json" for name in dict.fromkeys([*graphs, *_checkpoint_components()])),
        *(f"{name}/stages.onnx" for name in vaes),
        *(f"{name}/model.onnx*" for name in graphs),
        # What an exported model may have beside its family's components.
        *(f"{name}/{file}" for name in _ADDED for file in ("config.json", "model.onnx*")),
        *(f"{family.denoiser.component}/{file}" for family in FAMILIES for file in _KINDS),
    ]


def _checkpoint_components() -> list[str]:
    return list(dict.fromkeys(name for family in FAMILIES for name in family.checkpoint_components))


def check_id(model: str | Path) -> str:
    """Return `model` as a hub id.

    Raises:
        ModelNotFoundError: it is not a hub id, so it is probably a mistyped folder or file.
    """
    name = str(model)
    if names_file(name):
        # A path such as folder/file.safetensors looks like a hub id, but no repository has such a name.
        raise ModelNotFoundError.advised(
            f"there is no file {_shown(name)}",
            "check the path; a file on the hub is owner/name/file.safetensors",
            argument="model",
            path=Path(model),
        )
    if not _is_id(model):
        if name in embedded_names():
            raise ModelNotFoundError.advised(
                f"there is no folder {name}",
                f"for the embedded model, pass the string {name!r}, not a path",
                argument="model",
                path=Path(name),
            )
        embedded = "".join(f", nor the embedded model {name}" for name in embedded_names())
        raise ModelNotFoundError.advised(
            f"{_shown(name)!r} is neither a folder{embedded}, nor a hub id (owner/name, of ASCII letters, "
            "digits, '.', '_', '-')",
            "check the spelling, or make a folder with sdrt export CHECKPOINT -o model/",
            argument="model",
        )
    return name


def check_id_of(given: str | Path, argument: str, fits: str) -> str:
    """Return `given` as a hub id. It is what `argument`, such as "vae", names beside a model.

    Raises:
        ModelNotFoundError: it is not a hub id, or is the name of a file. The error says that `argument` takes `fits`.
    """
    if not _is_id(given) or names_file(str(given)):
        raise ModelNotFoundError.expected(
            f"{argument} is {_shown(str(given))!r}, which does not exist",
            fits,
            argument=argument,
            path=Path(given),
        )
    return str(given)


def _is_id(given: str | Path) -> bool:
    return isinstance(given, str) and _ID.fullmatch(given) is not None and ".." not in given


def _shown(name: str) -> str:
    return name if len(name) <= 200 else name[:200] + "…"


def download(
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    safety_checker: bool = True,
) -> Path:
    """Download the hub model `name` without torch weights; return its snapshot folder, named after the commit.

    Without `safety_checker`, the model's own stays on the hub.
    Files in huggingface_hub's cache are not downloaded again. Its own variables set offline mode, endpoint and cache
    (`HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_HOME`).

    Raises:
        ModelNotFoundError: the hub has no such model or revision, or refuses it, or cannot be reached.
    """
    options = {"token": token, "cache_dir": cache_dir}
    allow = _patterns(safety_checker)
    folder = _snapshot(name, revision, allow_patterns=allow, **options)
    if more := _weight_files(folder):
        folder = _snapshot(name, revision, allow_patterns=[*allow, *more], **options)
    return folder


def _weight_files(folder: Path) -> list[str]:
    """Return patterns for the files of weights that graphs name and that have not been downloaded."""
    found = []
    for graph in sorted(folder.glob(f"*/{GRAPH}")):
        # The weights of most graphs are in model.onnx_data, which has been downloaded by now.
        if (folder / MANIFEST_NAME).exists() or len(list(graph.parent.glob(f"{GRAPH}*"))) > 1:
            continue
        # Opening the folder reports a damaged graph.
        with suppress(IntegrityError, OSError):
            found += [f"{graph.parent.name}/{glob.escape(name)}" for name in read_graph(graph).external]
    return sorted(found)


def download_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    safety_checker: bool = True,
) -> Path:
    """Download the hub model `name` with its torch weights; return its snapshot folder.

    Without `safety_checker`, the model's own stays on the hub.
    The weights are safetensors files: those in full precision, else those in float16, else those in bfloat16.

    Raises:
        ModelNotFoundError: the hub has no such model or revision, or refuses it, or cannot be reached.
    """
    parts = [*_checkpoint_components(), *([SAFETY_CHECKER] if safety_checker else [])]
    allow = [*_patterns(safety_checker), *(f"{part}/*.safetensors*" for part in parts)]
    options = {"token": token, "cache_dir": cache_dir, "allow_patterns": allow}
    folder = _snapshot(name, revision, ignore_patterns=_VARIANTS, **options)
    for number, _ in enumerate(_VARIANTS[:-1], start=1):
        if all(list((folder / part).glob("*.safetensors")) for part in _parts_of(folder)):
            break
        folder = _snapshot(name, revision, ignore_patterns=_VARIANTS[number:], **options)
    return folder


def _parts_of(checkpoint: Path) -> Sequence[str]:
    family = None
    # Opening the folder reports a damaged index.
    with suppress(IntegrityError):
        family = known_family(checkpoint)
    if family is not None:
        return family.checkpoint_components
    return [part for part in _checkpoint_components() if (checkpoint / part).is_dir()]


def download_component(
    name: str,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
) -> Path:
    """Download the config and weights of a hub model that is a single network; return its snapshot folder.

    Raises:
        ModelNotFoundError: the hub has no such model or revision, or refuses it, or cannot be reached.
    """
    patterns = ["config.json", "*.safetensors"]
    return _snapshot(name, revision, token=token, cache_dir=cache_dir, allow_patterns=patterns)


def _snapshot(name: str, revision: str | None, **options: Any) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(name, revision):
        return Path(snapshot_download(name, revision=revision, **options))


@contextmanager
def hub_errors(name: str, revision: str | None, file: str = "") -> Iterator[None]:
    """Turn the errors of huggingface_hub about a model, or a file of it, into `ModelNotFoundError`.

    The block calls nothing but huggingface_hub.
    """
    from huggingface_hub import errors

    where = f"{name!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        yield
    except errors.GatedRepoError:
        raise ModelNotFoundError.advised(
            f"hub model {where} is gated",
            f"accept its terms at https://huggingface.co/{name}, then run hf auth login",
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError.advised(
            f"there is no {'file' if file else 'folder'} and no hub model {where}",
            "check the spelling. If the model is private, run hf auth login",
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError.advised(
            f"hub model {name!r} has no revision {revision!r}",
            "choose another, or leave it out for the main branch",
            argument="revision",
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise ModelNotFoundError.advised(
            f"hub model {where} is not in the cache, and the hub cannot be reached (offline?)",
            "connect to the network, unset HF_HUB_OFFLINE, or give a file or folder on this machine",
        ) from None
    except errors.EntryNotFoundError:
        raise ModelNotFoundError.advised(
            f"hub model {where} has no file {file!r}", f"see https://huggingface.co/{name}/tree/main"
        ) from None
    except MemoryError:
        raise
    except Exception as error:
        # huggingface_hub uses requests, httpx, httpx2 or xet, depending on its version. Their errors share no base
        # class. Answers of servers other than the hub's make it raise KeyError and others.
        if isinstance(error, OSError) and error.errno in _OF_DISK:
            raise ModelNotFoundError.advised(
                f"hub model {where} could not be saved ({error.strerror}: {error.filename or 'the cache'})",
                "make room there, or set HF_HOME to a folder that you can write to",
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFoundError.advised(
            f"hub model {where} could not be downloaded ({reason})", "try again"
        ) from error
