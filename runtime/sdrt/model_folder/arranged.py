"""What a model folder's manifest says of how its graphs store weights, so that adapters can change them."""

from __future__ import annotations

from pathlib import Path

from sdrt.adapters.stored_weights import StoredWeights
from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.manifest import Manifest, damaged

__all__ = ["stored_weights"]

# Their older exports store every weight as the checkpoint has it, or transposed.
_WITHOUT_ARRANGED = ("cpu", "portable")


def stored_weights(path: Path, component: str, manifest: Manifest | None) -> StoredWeights:
    """The weights of the graph `path`.

    Raises:
        UnsupportedModelError: the weights are not the checkpoint's, or nothing says how they were made.
        IntegrityError: the manifest is damaged.
    """
    if manifest is None or manifest.exporter != "sdrt":
        raise _unsupported(path, component, "sdrt did not export it, so its weights have other names")
    if manifest.dtype == "int8":
        raise _unsupported(
            path, component, "it is in int8", "export the checkpoint with --dtype fp32 or fp16"
        )
    entry = manifest.components.get(component)
    entry = entry if isinstance(entry, dict) else {}
    arranged = entry.get("arranged", {} if manifest.target in _WITHOUT_ARRANGED else None)
    if "transposed" not in entry or arranged is None:
        raise _unsupported(path, component, "an older sdrt exported it, and did not record how")
    if not isinstance(entry["transposed"], list) or not isinstance(arranged, dict):
        raise damaged(path, f"{path.parent.parent}: sdrt.json must list how {component} was exported")
    if not all(isinstance(one, dict) for one in arranged.values()):
        raise damaged(
            path, f"{path.parent.parent}: sdrt.json must say how weights of {component} are arranged"
        )
    names = frozenset(one for one in entry["transposed"] if isinstance(one, str))
    return StoredWeights(path=path, component=component, transposed=names, arranged=arranged)


def _unsupported(
    path: Path,
    component: str,
    reason: str,
    remedy: str = "export the checkpoint again with this version of sdrt export",
) -> UnsupportedModelError:
    return UnsupportedModelError.advised(
        f"adapters cannot change {component} of {path.parent.parent}: {reason}",
        remedy,
        joint="; ",
        component=component,
        path=path,
        argument="lora",
    )
