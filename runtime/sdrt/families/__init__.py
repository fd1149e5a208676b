"""Model families: what differs between them, as rows of data."""

from sdrt.families.family import (
    DenoiserSpec,
    Encoded,
    Family,
    IndexEntry,
    RowConditions,
    Task,
    TextEncoderSpec,
    VaeSpec,
)
from sdrt.families.table import FAMILIES, family_of

__all__ = [
    "FAMILIES",
    "DenoiserSpec",
    "Encoded",
    "Family",
    "IndexEntry",
    "RowConditions",
    "Task",
    "TextEncoderSpec",
    "VaeSpec",
    "family_of",
]
