"""OpenAI's Images API, as its official clients use it (https://platform.openai.com/docs/api-reference/images)."""

from fastapi import APIRouter

from sdrt.serve.routes.openai import files, images, models

__all__ = ["router"]

router = APIRouter(tags=["openai"])
for _module in (models, images, files):
    router.include_router(_module.router)
