"""`Request`, which describes images to make. It is frozen, and checked when it is constructed."""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.common.arguments import described
from sdrt.foreign.arguments import REQUESTING
from sdrt.foreign.checked import explains_construction
from sdrt.request.derived import DerivedSettings
from sdrt.request.validation import validate

__all__ = ["Request", "without_checker"]


@explains_construction("Request", REQUESTING)
@described
@dataclass(frozen=True, kw_only=True, eq=False)
class Request(DerivedSettings):
    """Describes images to make. The names and defaults are those of diffusers.

    Constructing a request reads its images. It also draws a seed if there is none, so `seed` is always a number.

    Raises:
        RequestError: a value is not acceptable, or does not go together with another value.
    """

    def __post_init__(self) -> None:
        validate(self)


def without_checker(request: Request) -> Request:
    """The request with the safety checker turned off. Its other values, which were checked, stay the same."""
    made = object.__new__(Request)
    made.__dict__.update(vars(request) | {"safety_checker": False})
    return made
