"""What OpenAI's clients read: images, usage, and the events of a stream."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

from sdrt.serve.errors import ServeError
from sdrt.serve.job import Job
from sdrt.serve.routes.openai.fields import Asked, Prompted
from sdrt.serve.task import Made, MadeImage

__all__ = ["answer", "blocks", "completed", "partial", "unless_blocked"]

_BLOCK = 16  # pixels


def answer(
    asked: Asked, job: Job, made: Made, given_tokens: int, url: Callable[[int], str]
) -> dict[str, Any]:
    """The answer with the images of a job.

    Args:
        asked: the request.
        job: the job.
        made: its result.
        given_tokens: what the user's images count in `usage`.
        url: the address of an image, by its index.
    """
    by_url = asked.response_format == "url"
    data = [
        {
            "b64_json": None if by_url else _base64(image.data),
            "url": url(index) if by_url else None,
            # Prompts are used as they are.
            "revised_prompt": None,
            "seed": image.seed,
            "nsfw_content_detected": image.flagged,
        }
        for index, image in enumerate(made.images)
    ]
    notices = [*(asked.notices if isinstance(asked, Prompted) else ()), *made.notices]
    return {
        "created": int(job.finished or job.created),
        "data": data,
        **_facts(asked, made.images[0]),
        "usage": _usage(made, len(made.images), given_tokens),
        **({"notices": notices} if notices else {}),
    }


def unless_blocked(made: Made) -> Made:
    """The result, unless the safety checker made all its images black.

    Raises:
        ServeError: it did, in OpenAI's words.
    """
    if made.images and all(image.flagged for image in made.images):
        raise ServeError(
            400,
            "the model's safety checker flagged every image, so that they are black: change the prompt or the seed",
            code="moderation_blocked",
        )
    return made


def partial(asked: Prompted, job: Job, index: int, data: bytes) -> dict[str, Any]:
    """The event with a preview."""
    return {
        "b64_json": _base64(data),
        "partial_image_index": index,
        "created_at": int(job.created),
        **_facts(asked, None),
    }


def completed(asked: Prompted, job: Job, made: Made, image: MadeImage, given_tokens: int) -> dict[str, Any]:
    """The event with an image. Its usage is that of one image."""
    return {
        "b64_json": _base64(image.data),
        "created_at": int(job.finished or job.created),
        **_facts(asked, image),
        "usage": _usage(made, 1, given_tokens),
        "seed": image.seed,
        "nsfw_content_detected": image.flagged,
    }


def _facts(asked: Asked, image: MadeImage | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "background": "opaque",
        "output_format": asked.output_format or "png",
        "quality": asked.told_quality if isinstance(asked, Prompted) else "high",
        "size": (asked.size or "auto") if image is None else f"{image.width}x{image.height}",
    }
    return facts | ({"safety_identifier": asked.identifier} if asked.identifier else {})


def _usage(made: Made, images: int, given: int) -> dict[str, Any]:
    """Tokens. Texts have the tokenizer's; of images, each square of 16 pixels counts as one."""
    text, one = made.prompt_tokens or 0, made.images[0]
    output = blocks(one.width, one.height) * images
    return {
        "input_tokens": text + given,
        "input_tokens_details": {"text_tokens": text, "image_tokens": given},
        "output_tokens": output,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
        "total_tokens": text + given + output,
    }


def blocks(width: int, height: int) -> int:
    """How many squares of 16 pixels cover an image."""
    return math.ceil(width / _BLOCK) * math.ceil(height / _BLOCK)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
