"""Model families. Each family is a row of data that says how it differs from the others."""

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
