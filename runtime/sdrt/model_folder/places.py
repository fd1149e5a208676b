"""Whether a text names a file on this machine, or something on the hub."""

from __future__ import annotations

from pathlib import Path

from sdrt.common.file_kind import WEIGHTS

__all__ = ["is_local", "names_file"]

_SUFFIXES = (
    *(*WEIGHTS, ".sft", ".onnx", ".onnx_data", ".pkl", ".h5", ".msgpack", ".json", ".yaml", ".yml", ".txt"),
    *(".zip", ".png", ".jpg", ".jpeg", ".webp"),
)
"""Suffixes of files, which names of repositories on the hub do not have."""
_USUAL = frozenset(
    {
        *(
            "models",
            "model",
            "checkpoints",
            "checkpoint",
            "ckpt",
            "stable-diffusion",
            "unet",
            "diffusion_models",
        ),
        *("lora", "loras", "lycoris", "vae", "controlnet", "ipadapter", "ip-adapter", "clip", "clip_vision"),
        *("embeddings", "weights", "downloads", "data", "home", "mnt", "tmp", "workspace", "content"),
        *("comfyui", "stable-diffusion-webui", "stable-diffusion-webui-forge"),
    }
)
"""Folders in which people keep files of models. No publisher on the hub is called so."""


def names_file(text: str) -> bool:
    """Tell whether a text ends like a file's name."""
    return text.lower().endswith(_SUFFIXES)


def is_local(text: str) -> bool:
    """Tell whether a text that names no file on this machine can only mean one, so that the hub is not asked.

    A file on the hub is `owner/name/file.safetensors`. So is a path, if its first folder is here, or has a usual name.
    """
    parts = text.replace("\\", "/").split("/")
    if "\\" in text or parts[0] in ("", ".", "..") or parts[0].startswith("~"):
        return True
    if not names_file(text):
        return False
    return len(parts) < 3 or parts[0].lower() in _USUAL or _is_folder(parts[0])


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # no file can have this name
        return False
