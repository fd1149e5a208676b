"""Summaries of model folders, for `sdrt info`, `sdrt models` and `sdrt export`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdrt.common.visible import visible
from sdrt.errors import IntegrityError
from sdrt.model_folder.manifest import readable
from sdrt.onnx.providers import PROVIDERS

if TYPE_CHECKING:
    from sdrt.families.defaults import Defaults
    from sdrt.model_folder.folder import Manifest, ModelFolder

__all__ = ["defaults_of", "human_size", "parity_of", "render", "shown_defaults", "summarise", "verify_now"]

UNKNOWN = "unknown (exported by another program: no sdrt.json)"


def human_size(count: int) -> str:
    """`count` bytes with a unit, in powers of 1024: "1.5 GB"."""
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def parity_of(manifest: Manifest) -> dict[str, float]:
    """Component → largest relative error against torch that the export measured."""
    found = {}
    for name, component in manifest.components.items():
        errors = [check["relative_error"] for check in component.get("parity", ())]
        if errors:
            found[name] = float(max(errors))
    return found


def verify_now(folder: ModelFolder, notify: Callable[[str], None]) -> None:
    """Hash every file again. Raises `IntegrityError` with the names of all files that differ."""
    from sdrt.model_folder.folder import FileRecord

    if folder.manifest is None:
        raise IntegrityError.advised(
            f"{folder.path} has no sdrt.json, so there are no hashes to compare with",
            "export the model again",
            path=folder.path / "sdrt.json",
        )
    files = folder.manifest.files
    notify(f"checking {len(files)} files, {human_size(sum(record.size for record in files.values()))}")
    with readable(folder.path):
        damaged = [name for name, record in files.items() if FileRecord.of(folder.path / name) != record]
    if damaged:
        raise IntegrityError.advised(
            f"{folder.path}: {', '.join(damaged)} differ from sdrt.json",
            "copy or export the model again",
            path=folder.path / damaged[0],
        )


def summarise(folder: ModelFolder, *, verified: bool) -> dict[str, Any]:
    """The folder as JSON, with sizes in bytes. Values that come from the manifest are None without one."""
    manifest = folder.manifest
    components = _component_sizes(folder)
    parity = parity_of(manifest) if manifest else {}
    return {
        "model": folder.name,
        "path": str(folder.path),
        **{key: getattr(manifest, key, None) for key in ("family", "target", "dtype", "opset", "exporter")},
        "made_for": _made_for(manifest.target) if manifest else None,
        "source": dict(manifest.source) if manifest else None,
        "versions": dict(manifest.versions) if manifest else None,
        "scheduler": folder.scheduler_config.get("_class_name"),
        "defaults": defaults_of(folder.capabilities.defaults),
        "components": {
            name: {"bytes": size, "relative_error": parity.get(name)} for name, size in components.items()
        },
        "bytes": sum(components.values()),
        "hashes": _hash_state(folder, verified),
    }


def defaults_of(defaults: Defaults) -> dict[str, Any]:
    """What calls use for the settings that they do not give, and what says so, as JSON."""
    timesteps = None if defaults.timesteps is None else list(defaults.timesteps)
    return {
        "num_inference_steps": defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale,
        "timesteps": timesteps,
        "origin": defaults.origin or None,
    }


def _made_for(target: str) -> list[str]:
    """The providers that use graphs of this target."""
    return [name for name, row in PROVIDERS.items() if row.target == target]


def _component_sizes(folder: ModelFolder) -> dict[str, int]:
    with readable(folder.path):
        return {
            part.name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
            for part in sorted(folder.path.iterdir())
            if part.is_dir() and not part.name.startswith(".")
        }


def _hash_state(folder: ModelFolder, verified: bool) -> str:
    if folder.manifest is None:
        return "none recorded"
    return "verified" if verified or folder.is_verified() else "not verified"


def render(summary: dict[str, Any]) -> str:
    """The summary as aligned lines."""
    source = summary["source"] or {}
    rows = [
        ("model", summary["model"]),
        ("path", summary["path"]),
        *((key, str(summary[key] or UNKNOWN)) for key in ("target", "dtype", "exporter")),
        ("made for", ", ".join(summary["made_for"] or ()) or "unknown"),
        (
            "source",
            " at ".join(str(source[key]) for key in ("id", "revision") if source.get(key)) or "unknown",
        ),
        ("scheduler", summary["scheduler"] or "unknown"),
        ("defaults", shown_defaults(summary["defaults"])),
        ("size", human_size(summary["bytes"])),
        ("hashes", summary["hashes"]),
        *((f"  {visible(name)}", _component(part)) for name, part in summary["components"].items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {visible(str(value))}" for name, value in rows)


def shown_defaults(defaults: dict[str, Any]) -> str:
    """The same in words."""
    steps, origin = defaults["num_inference_steps"], defaults["origin"]
    at = f" at timesteps {', '.join(map(str, defaults['timesteps']))}" if defaults["timesteps"] else ""
    shown = f"{steps} step{'' if steps == 1 else 's'}{at}, guidance scale {defaults['guidance_scale']:g}"
    return f"{shown}, because {origin}" if origin else shown


def _component(part: dict[str, Any]) -> str:
    error = part["relative_error"]
    parity = "" if error is None else f", relative error against torch {error:.1e}"
    return f"{human_size(part['bytes'])}{parity}"
