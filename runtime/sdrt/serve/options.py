"""The options of the server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrt.errors import RequestError
from sdrt.serve.keys import Keys
from sdrt.serve.served_model import ServedModel
from sdrt.serve.worker_process import WorkerSetup

__all__ = ["Limits", "ServeOptions", "check_proxies", "is_loopback"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may take.

    Attributes:
        queue: jobs that may wait.
        side_work: images that may wait for work in the server itself, such as enlarging, with the one in work.
        body: bytes of a request. At most half of `uploads`, because the images in it count once more.
        uploads: bytes of all bodies, and of the images of jobs that wait or run, at once.
        silence: seconds within which the head of a request must arrive, and then each further part of its body.
        images: images of a request.
        steps: steps of an image.
        pixels: pixels of an image, its own or one that the user gives.
        timeout: seconds that a run may take. None for any time.
        kept_seconds, kept_bytes: how long results are kept for those who ask later, and how much of them.
        grace: seconds for what runs when the server stops.
    """

    queue: int = 64
    side_work: int = 16
    body: int = 64 * 2**20
    uploads: int = 256 * 2**20
    silence: float = 30.0
    images: int = 16
    steps: int = 150
    pixels: int = 2048 * 2048
    timeout: float | None = 3600.0
    kept_seconds: float = 600.0
    kept_bytes: int = 256 * 2**20
    grace: float = 30.0

    @property
    def largest_body(self) -> int:
        """The bytes that a request may have."""
        return min(self.body, self.uploads // 2)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What to serve, and how.

    Attributes:
        models: the models, the default one first.
        providers: a worker for each.
        loading: arguments of `StableDiffusionPipeline.from_pretrained` for every model.
        lora_dir: the folder in which names of LoRAs are looked up.
        keys: the keys of which a request must have one. Empty for none.
        origins: other sites whose pages may use the server.
        hosts: further names of this server, which requests may have in their `Host`.
        proxies: addresses and networks whose `X-Forwarded-Proto` and `X-Forwarded-For` are believed.
        preload: whether to open the first model before the server says that it is ready.
        max_batch: how many jobs may share a run, where that is faster.
        max_memory: bytes of a worker above which it lets go of models.
        limits: the limits.
    """

    models: Sequence[ServedModel]
    providers: Sequence[str] = ("auto",)
    loading: Mapping[str, Any] = field(default_factory=dict)
    lora_dir: Path | None = None
    keys: Keys = field(default_factory=Keys)
    origins: Sequence[str] = ()
    hosts: Sequence[str] = ()
    proxies: Sequence[str] = ()
    preload: bool = True
    max_batch: int = 8
    max_memory: int | None = None
    limits: Limits = Limits()

    def setups(self) -> list[WorkerSetup]:
        """What each worker needs to know."""
        models = {model.name: model for model in self.models}
        first = self.models[0].name if self.preload else None
        return [
            WorkerSetup(
                models=models,
                options={**self.loading, "provider": provider},
                first=first,
                max_memory=self.max_memory,
            )
            for provider in self.providers
        ]


def check_proxies(given: Sequence[str]) -> Sequence[str]:
    """The addresses and networks of proxies.

    Raises:
        RequestError: one is neither. Names are refused, because nothing proves whose they are.
    """
    for text in given:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise RequestError.expected(
                f"--proxy is {text!r}", "an address or network such as 10.0.0.0/8", argument="proxies"
            ) from None
    return given


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
