"""Tensors that files contain beside the model's weights, and the reasons to leave them out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["EXTRAS", "Extra", "extra_of"]


@dataclass(frozen=True)
class Extra:
    """A pattern of full names, and the reason why these tensors are not needed."""

    pattern: re.Pattern[str]
    reason: str


def _extra(pattern: str, reason: str) -> Extra:
    return Extra(re.compile(pattern), reason)


_TEXT = r"(cond_stage_model|conditioner\.embedders\.\d)\."

EXTRAS: Sequence[Extra] = (
    # Merging programs average and round them. A1111 uses them, diffusers does not.
    _extra(r"(^|\.)position_ids$", "sdrt counts positions from 0, as diffusers does"),
    _extra(r"^model_ema\.", "averaged weights; the plain ones are used, as in A1111 and diffusers"),
    _extra(
        r"^(betas|alphas_cumprod(_prev)?|(sqrt|log)_\w*alphas_cumprod\w*|posterior_\w+|lvlb_weights|logvar"
        r"|sqrt_recip\w+)$",
        "the noise schedule, which the scheduler computes",
    ),
    _extra(r"^denoiser\.(sigmas|log_sigmas)$", "the noise schedule, which the scheduler computes"),
    _extra(r"^low_scale_model\.", "the noise schedule of the upscaler's small image"),
    _extra(r"^(v_pred|ztsnr)$", "a marker, which sets the scheduler's config"),
    _extra(r"^(global_step|epoch|iteration)$", "a count of the training"),
    _extra(r"(^|\.)logit_scale$", "a factor for comparing texts with images, which no model here does"),
    _extra(rf"^({_TEXT})?(model\.|transformer\.)?visual\.", "the half of CLIP that sees images"),
    _extra(
        rf"^({_TEXT})?(transformer\.)?(vision_model|visual_projection)\.",
        "the half of CLIP that sees images",
    ),
    _extra(
        rf"^{_TEXT}(model\.|transformer\.)?text_projection(\.weight)?$|^text_projection(\.weight)?$",
        "the projection of a text encoder whose pooled output is not used",
    ),
    _extra(
        r"(^|\.)(transformer\.resblocks|encoder\.layers)\.23\.",
        "the last layer of Stable Diffusion 2's text encoder, which the model does not use",
    ),
    _extra(rf"^({_TEXT})?(model\.)?attn_mask$", "the causal mask, which the graph makes"),
    _extra(r"^(first_stage_model\.|vae\.)?loss\.", "the loss for training the VAE"),
)


def extra_of(name: str) -> Extra | None:
    """The row for a tensor, by its full name."""
    return next((row for row in EXTRAS if row.pattern.search(name)), None)
