"""What a network that predicts v is trained on: latents of images, and noise where there is something to learn."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from transformers import CLIPTokenizerFast

from sdrt_models.shapes.architecture import SCHEDULER

__all__ = ["Noise", "Noisy", "latents_of", "moments_of", "token_ids"]

_LOG_SIGMA = (0.5, 1.2)
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Noisy:
    """Latents with noise, (n, 4, 16, 16), their timesteps, v, and how much of the image is left in each, (n,)."""

    x: torch.Tensor
    timestep: torch.Tensor
    v: torch.Tensor
    alpha: torch.Tensor

    def loss(self, predicted: torch.Tensor, others: torch.Tensor | float = 0.0) -> torch.Tensor:
        """The weighted mean of the error of ``predicted``, and of ``others``, (n,)."""
        losses: torch.Tensor = (predicted - self.v).square().mean((1, 2, 3)) + others
        # In strong noise, what cannot be known is most of the error, and its gradient would drown the rest.
        weighted: torch.Tensor = self.alpha * losses
        return weighted.mean()


class Noise:
    """Adds noise of the model's schedule."""

    def __init__(self, device: str) -> None:
        self._alphas_cumprod = DDPMScheduler.from_config(SCHEDULER).alphas_cumprod.to(device)
        self._sigmas = ((1 - self._alphas_cumprod) / self._alphas_cumprod).sqrt().cpu().numpy()

    def add(self, x_0: torch.Tensor, rng: np.random.Generator) -> Noisy:
        """Add noise to latents. ``rng`` chooses the timesteps, torch's generator the noise."""
        timestep = torch.from_numpy(_timesteps(self._sigmas, len(x_0), rng)).to(x_0.device)
        alpha = self._alphas_cumprod[timestep].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - self._alphas_cumprod[timestep]).sqrt().view(-1, 1, 1, 1)
        eps = torch.randn_like(x_0)
        return Noisy(
            x=alpha * x_0 + sigma * eps,
            timestep=timestep,
            v=alpha * eps - sigma * x_0,
            alpha=alpha.flatten(),
        )


def _timesteps(sigmas: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Timesteps of log-normal noise levels, one from each of ``count`` equally likely parts.

    The scaled-linear schedule was made for latents of 64×64. In latents of 16×16, noise hides more, and half of the
    timesteps show nothing. So the levels are chosen where there is something to learn, as in EDM.
    """
    normal = statistics.NormalDist(*_LOG_SIGMA)
    parts = (np.arange(count) + rng.random(count)) / count
    levels = np.array([normal.inv_cdf(min(max(part, 1e-6), 1 - 1e-6)) for part in parts])
    return np.asarray(np.abs(np.log(sigmas)[None] - levels[:, None]).argmin(1))


def moments_of(vae: AutoencoderKL, images: Iterable[np.ndarray], device: str) -> np.ndarray:
    """Mean and log-variance of the latents of images (128, 128, 3) uint8: (count, 8, 16, 16) float16."""
    left, parts = iter(images), []
    while some := list(islice(left, _AT_ONCE)):
        tensor = torch.from_numpy(np.stack(some)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            tensor = tensor.contiguous(memory_format=torch.channels_last)
            parts.append(vae.encode(tensor).latent_dist.parameters.cpu().numpy().astype(np.float16))
    return np.concatenate(parts)


def latents_of(moments: torch.Tensor, scaling_factor: float) -> torch.Tensor:
    """A sample of the posterior, as in the training of Stable Diffusion."""
    mean, log_variance = moments.float().chunk(2, dim=1)
    std = (0.5 * log_variance.clamp(-30, 20)).exp()
    return (mean + std * torch.randn_like(mean)) * scaling_factor


def token_ids(tokenizer: CLIPTokenizerFast, texts: list[str], device: str) -> torch.Tensor:
    """The ids of ``texts``, (n, 77)."""
    encoded = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids.to(device)
    return ids
