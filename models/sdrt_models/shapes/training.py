"""The training loop of all stages: steps, exponential moving average, resumable checkpoints, a loss curve."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["Stage", "device_option", "made_by", "sheet", "train", "work_argument"]


def _make(_: click.Context, __: click.Parameter, work: Path) -> Path:
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"{work}: cannot write there: {error.strerror}") from None
    return work


def _check_device(_: click.Context, __: click.Parameter, device: str) -> str:
    """Check the device before any work begins."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise click.BadParameter(f"{device}: {str(error).splitlines()[0]}") from None
    return device


work_argument = click.argument(
    "work", type=click.Path(path_type=Path, file_okay=False, writable=True), callback=_make
)
device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    callback=_check_device,
    help="The torch device: cpu or cuda.",
)


def made_by(stage: str, part: Path) -> Path:
    """The folder ``part``, which ``stage`` writes. Without this check, diffusers would look for it on the hub.

    Raises:
        click.ClickException: the folder does not exist.
    """
    if not any(part.glob("*.json")):
        raise click.ClickException(
            f"{part} is not there: python -m sdrt_models.shapes.{stage} {part.parent} makes it"
        )
    return part


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    ``loss`` chooses a batch with the given generator, which is seeded by the step, and returns the loss of ``model``.
    ``sample`` makes an image that shows the progress of the averaged model. ``data`` describes the data, so that a
    training cannot continue with other data. ``last_rate`` is the share of the learning rate before the last
    ``cooldown`` steps, in which it falls to zero. ``folder`` contains ``state.pt``, ``loss.png``, and the folders
    ``samples`` and ``averaged``, with a file for every sample.
    """

    model: nn.Module
    loss: Callable[[Any, int, np.random.Generator], torch.Tensor]
    sample: Callable[[Any], Image.Image] | None
    data: str
    folder: Path
    steps: int
    learning_rate: float
    device: str
    seed: int = 0
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    warmup: int = 200
    last_rate: float = 0.0
    cooldown: int = 0
    every: int = 500
    sample_every: int = 2000


def train(stage: Stage) -> Any:
    """Train to ``stage.steps``, starting from ``state.pt`` if it exists. Returns the averaged model.

    Raises:
        click.ClickException: ``state.pt`` was made with other settings, from other data or from other weights.
    """
    training = _Training(stage)
    if training.state_file.is_file():
        training.resume()
    begin, first = time.monotonic(), len(training.losses)
    for step in range(first + 1, stage.steps + 1):
        training.take_step()
        if step % stage.every == 0 or step == stage.steps:
            pace = (time.monotonic() - begin) / (step - first)
            mean = float(np.mean(training.losses[-stage.every :]))
            click.echo(f"{stage.folder.name}: step {step}/{stage.steps}, loss {mean:.5f}, {pace:.3f} s/step")
            training.save()
        if step % stage.sample_every == 0 or step == stage.steps:
            training.sample()
    return training.averaged


class _Training:
    """A stage that has taken as many steps as it has ``losses``."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.settings = _settings(stage)
        self.state_file = stage.folder / "state.pt"
        torch.manual_seed(stage.seed)
        stage.folder.mkdir(parents=True, exist_ok=True)
        self.model = stage.model.to(stage.device).train()
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=stage.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=stage.weight_decay,
            fused=True,
        )
        self.losses: list[float] = []

    def resume(self) -> None:
        """Go on from ``state.pt``."""
        state = torch.load(self.state_file, map_location=self.stage.device, weights_only=True)
        _check_settings(self.state_file, state["settings"], self.settings)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses = state["losses"]
        click.echo(f"{self.stage.folder.name}: resumes at step {len(self.losses)}")

    def take_step(self) -> None:
        """Train on the next batch."""
        stage, step = self.stage, len(self.losses)
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * _schedule(step, stage)
        torch.manual_seed(stage.seed + step + 1)
        loss = stage.loss(self.model, step, np.random.default_rng((stage.seed, step)))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        _average(self.averaged, self.model, min(stage.ema_decay, (step + 1) / (step + 10)))
        self.losses.append(float(loss.detach()))

    def save(self) -> None:
        """Write ``state.pt`` and ``loss.png``."""
        state = {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
        }
        _save(state, self.state_file)
        _plot(self.losses, self.stage.folder / "loss.png")

    def sample(self) -> None:
        """Write a sample of the averaged model, and its weights."""
        if self.stage.sample is None:
            return
        folder, step = self.stage.folder, len(self.losses)
        for room in ("samples", "averaged"):
            (folder / room).mkdir(exist_ok=True)
        torch.save(self.averaged.state_dict(), folder / "averaged" / f"{step:06d}.pt")
        self.stage.sample(self.averaged).save(folder / "samples" / f"{step:06d}.png")


def _settings(stage: Stage) -> dict[str, float | str]:
    """The settings that must stay the same to resume a training, including its first weights."""
    names = (
        "steps",
        "learning_rate",
        "last_rate",
        "cooldown",
        "seed",
        "ema_decay",
        "weight_decay",
        "warmup",
        "data",
    )
    weights = hashlib.sha256()
    for name, value in stage.model.state_dict().items():
        weights.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return {name: getattr(stage, name) for name in names} | {"first weights": weights.hexdigest()[:12]}


def _check_settings(
    state_file: Path, made_with: dict[str, float | str], settings: dict[str, float | str]
) -> None:
    changed = [name for name, value in settings.items() if made_with.get(name) != value]
    if changed:
        raise click.ClickException(
            f"{state_file} was made with {changed[0]} {made_with.get(changed[0])}, and this is "
            f"{settings[changed[0]]}: use the same value again, or delete {state_file.parent} to start again"
        )


def _schedule(step: int, stage: Stage) -> float:
    """The share of the learning rate: a linear warm-up, half a cosine down to ``last_rate``, then a line to zero."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    hot = stage.steps - stage.cooldown
    done = (step - stage.warmup) / max(1, hot - stage.warmup)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    rate = stage.last_rate + (1 - stage.last_rate) * fall
    return rate if step < hot else rate * (stage.steps - step) / stage.cooldown


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average(list(averaged.parameters()), list(model.parameters()), None)


def _save(state: Any, path: Path) -> None:
    """Save under another name first, so that an interrupted save keeps the last file."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _plot(losses: list[float], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    width = max(1, len(losses) // 200)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(np.arange(len(smooth)) + width, smooth, linewidth=1)
    axes.set(xlabel="step", ylabel=f"loss, mean of {width}", yscale="log", title=path.parent.name)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def sheet(images: np.ndarray, columns: int) -> Image.Image:
    """Join images (n, height, width, 3) uint8 into one, row by row."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    joined = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), (96, 96, 96))
    for index, image in enumerate(images):
        joined.paste(
            Image.fromarray(image), (index % columns * (width + 2) + 1, index // columns * (height + 2) + 1)
        )
    return joined
