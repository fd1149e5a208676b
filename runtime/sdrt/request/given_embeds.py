"""Checks the embeddings that a call gives in place of prompts, and the prompts of models without text encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdrt.errors import RequestError
from sdrt.request.checks import check_shape

if TYPE_CHECKING:
    from sdrt.families.capabilities import Capabilities
    from sdrt.request.fitted import FittedRequest

__all__ = ["check_embeds", "check_text_encoder"]


def check_text_encoder(request: FittedRequest, capabilities: Capabilities) -> None:
    """Raise `RequestError` for a prompt that a model without text encoders would have to encode."""
    if capabilities.has_text_encoder:
        return
    if request.prompt_embeds is None:
        raise RequestError.advised(
            "this model has no text encoder",
            "give prompt_embeds instead of prompt",
            joint="; ",
            argument="prompt",
        )
    if request.guided and request.negative_prompt_embeds is None and not request.zero_negative:
        raise RequestError.advised(
            "this model has no text encoder",
            "give negative_prompt_embeds, or guidance_scale=1",
            joint="; ",
            argument="negative_prompt",
        )


def check_embeds(request: FittedRequest, capabilities: Capabilities) -> None:
    """Raise `RequestError` for embeddings of a wrong shape, or without the pooled ones that belong to them."""
    embeds, negative = request.prompt_embeds, request.negative_prompt_embeds
    if capabilities.takes_pooled:
        _check_pooled(request, capabilities)
    if embeds is not None:
        check_shape("prompt_embeds", embeds, (None, None, capabilities.embeds_width))
    if negative is not None:
        length = embeds.shape[1] if embeds is not None else None
        check_shape(
            "negative_prompt_embeds",
            negative,
            (request.num_prompts, length, capabilities.embeds_width),
        )
    if not request.zero_negative:
        return
    for name in ("negative_prompt_2", "negative_pooled_prompt_embeds"):
        if getattr(request, name) is not None:
            raise RequestError.advised(
                f"{name} has no effect without negative_prompt: this model then takes zeros in place of embeddings",
                f"give negative_prompt, or leave out {name}",
                joint="; ",
                argument=name,
            )


def _check_pooled(request: FittedRequest, capabilities: Capabilities) -> None:
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        pooled = name.replace("prompt", "pooled_prompt")
        given = getattr(request, pooled)
        if getattr(request, name) is not None and given is None:
            raise RequestError.advised(
                f"{name} is given without {pooled}, which this model needs too",
                f"give {pooled}",
                joint="; ",
                argument=pooled,
            )
        check_shape(pooled, given, (request.num_prompts, capabilities.pooled_width))
