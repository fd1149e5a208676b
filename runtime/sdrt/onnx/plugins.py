"""Execution providers in libraries of their own, which ONNX Runtime loads when it is told to.

A package such as `onnxruntime-ep-webgpu` has such a library, and a function that says where it is. A library offers
devices. It is loaded once for a process, and only if something asks for its provider.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from sdrt.common.cancelling import held
from sdrt.common.messages import brief
from sdrt.errors import ProviderError
from sdrt.onnx.engine import FAILURES, ort
from sdrt.onnx.providers import PROVIDERS, Provider, SessionConfig

__all__ = ["Device", "Library", "chosen", "devices_of", "find_library", "installed_packages", "load"]

PREFIX = "onnxruntime-ep-"
# What packages call their functions. They share no convention.
_PATHS, _NAMES = ("get_library_path", "library_path"), ("get_ep_names", "get_ep_name", "ep_name")
_BUILT_IN = "CPUExecutionProvider"
_ERRORS = 3
_lock = threading.Lock()
_loaded: dict[Path, str] = {}


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library of execution providers.

    Attributes:
        name: the package, or the file.
        version: the package's version. Empty for a file.
        path: the file.
        providers: ONNX Runtime's names for its providers, as far as the package says them.
    """

    name: str
    path: Path
    version: str = ""
    providers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that a library offers.

    Attributes:
        provider: ONNX Runtime's name for the provider that runs it.
        kind: "CPU", "GPU" or "NPU".
        vendor: whose device it is, as the system says.
        facts: what else the system and the library say.
        handle: ONNX Runtime's object for it.
        number: its place among all devices that ONNX Runtime knows.
    """

    provider: str
    kind: str
    vendor: str
    facts: dict[str, str] = field(compare=False)
    handle: Any = field(compare=False)
    number: int = 0

    @property
    def is_virtual(self) -> bool:
        """Whether no hardware is behind it. Such a device compiles graphs, but runs none."""
        return self.facts.get("is_virtual") == "1"

    def __str__(self) -> str:
        name = self.facts.get("Description", "")
        return " ".join(filter(None, [self.vendor, self.kind, f"({name})" if name else ""]))


def installed_packages() -> list[str]:
    """The names of the installed packages `onnxruntime-ep-…`."""
    names = {_normal(one.metadata["Name"] or "") for one in metadata.distributions()}
    return sorted(one for one in names if one.startswith(PREFIX))


def find_library(given: str) -> Library:
    """The library in the file `given`, or in the package of that name.

    Raises:
        ProviderError: there is neither, or the package does not say where its library is.
    """
    with suppress(OSError, RuntimeError, ValueError):  # too long a name, no home folder, a null character
        if (path := Path(given).expanduser()).is_file():
            return Library(name=given, path=path.resolve())
    if re.fullmatch(r"[A-Za-z0-9._-]+", given) and (found := _of_package(_normal(given))) is not None:
        return found
    raise ProviderError.advised(
        f"provider_library is {brief(given)}, which is neither a file nor an installed package with a library",
        f"give the library's file, or pip install a package such as {PREFIX}webgpu",
        argument="provider_library",
    )


def load(library: Library) -> None:
    """Let ONNX Runtime load the library, unless it has done so before.

    Raises:
        ProviderError: it cannot be loaded, or needs another version of ONNX Runtime.
    """
    register = getattr(ort, "register_execution_provider_library", None)
    if register is None:
        raise ProviderError.advised(
            f"onnxruntime {ort.__version__} cannot load libraries of providers",
            "upgrade it to 1.24.4 or later",
            argument="provider_library",
        )
    with held(_lock):
        if library.path in _loaded:
            return
        name = f"sdrt-{len(_loaded)}-{library.path.stem}"
        # Libraries write their notes to the log of the process, not to that of a session.
        ort.set_default_logger_severity(_ERRORS)
        try:
            register(name, str(library.path))
        except FAILURES as error:
            raise _refused(library, " ".join(str(error).split())[:400]) from error
        _loaded[library.path] = name


def devices_of(library: Library) -> list[Device]:
    """The devices that the library offers. Loads it. Raises what `load` raises."""
    load(library)
    offered = enumerate(ort.get_ep_devices())
    found = [_device(one, number) for number, one in offered if one.ep_name != _BUILT_IN]
    if library.providers:
        return [one for one in found if one.provider in library.providers]
    # A file does not say which providers it has, but its devices say which file they are from.
    return [one for one in found if Path(one.facts.get("library_path", library.path)) == library.path]


def chosen(config: SessionConfig) -> Device | None:
    """The device of a plug-in library that `config` asks for. None if the provider is built into ONNX Runtime.

    Raises:
        ProviderError: the library is not installed, cannot be loaded, or offers no such device.
    """
    row = PROVIDERS[config.name]
    library = _library_for(row, config)
    if library is None:
        return None
    found = [one for one in devices_of(library) if one.provider == row.ort and not one.is_virtual]
    if not found:
        raise ProviderError.advised(
            f"{library} offers no device for {config.name}",
            f"it needs {row.needs}; sdrt doctor lists what there is",
            provider=config.provider,
        )
    if config.device_id >= len(found):
        listed = ", ".join(f"{config.name}:{number} {one}" for number, one in enumerate(found))
        raise ProviderError.expected(f"there is no {config.provider}", listed, provider=config.provider)
    return found[config.device_id]


def _library_for(row: Provider, config: SessionConfig) -> Library | None:
    if config.provider_library is not None:
        return find_library(os.fspath(config.provider_library))
    library = _of_package(row.package) if row.package else None
    # Once a library is loaded, its providers count as available.
    is_built_in = row.ort in ort.get_available_providers() and (
        library is None or library.path not in _loaded
    )
    return None if is_built_in else library


def _of_package(name: str) -> Library | None:
    """The library of an installed package. None if there is no such package."""
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    version = package.version
    try:
        module = importlib.import_module(_module_of(package, name))
        path, names = _call(module, _PATHS), _call(module, _NAMES)
        is_there = path is not None and Path(path).is_file()
    except Exception as error:  # whatever the package raises
        raise _lost(name, version, f" ({type(error).__name__}: {brief(str(error))})") from error
    if not is_there:
        raise _lost(name, version, "")
    providers = (names,) if isinstance(names, str) else tuple(names or ())
    return Library(name=name, version=version, path=Path(path).resolve(), providers=providers)


def _module_of(package: metadata.Distribution, name: str) -> str:
    """The module of a package. onnxruntime-ep-nv-tensorrt-rtx-cu13 has one without the version of CUDA in its name."""
    usual = name.replace("-", "_")
    given = (package.read_text("top_level.txt") or "").split()
    ours = [one for one in given if usual.startswith(one)]
    return usual if usual in given else next(iter(ours or given), usual)


def _call(module: Any, names: tuple[str, ...]) -> Any:
    """What the first of these functions that `module` has returns. None if it has none."""
    function = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    return None if function is None else function()


def _lost(name: str, version: str, reason: str) -> ProviderError:
    return ProviderError.advised(
        f"the package {name} {version} does not say where its library is{reason}",
        "give the file itself with --provider-library, or install the package again",
        argument="provider_library",
    )


def _device(found: Any, number: int) -> Device:
    hardware = found.device
    return Device(
        provider=found.ep_name,
        kind=str(hardware.type).rpartition(".")[2],
        vendor=hardware.vendor or found.ep_vendor,
        facts={**dict(found.ep_metadata), **dict(hardware.metadata)},
        handle=found,
        number=number,
    )


def _refused(library: Library, reason: str) -> ProviderError:
    return ProviderError.advised(
        f"ONNX Runtime cannot load {library} ({library.path}): {reason}",
        "install a version that suits the installed onnxruntime",
        argument="provider_library",
    )


def _normal(name: str) -> str:
    """A package's name, normalised (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
