"""OpenAI's Images API, as its official clients use it (https://platform.openai.com/docs/api-reference/images)."""

from fastapi import APIRouter

router = APIRouter()
