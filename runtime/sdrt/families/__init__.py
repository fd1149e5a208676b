"""Model families. Each family is a row of data that says how it differs from the others."""

from sdrt.families.encoded import Encoded, RowConditions
from sdrt.families.family import Family
from sdrt.families.specs import (
    ControlNetSpec,
    DenoiserSpec,
    IndexEntry,
    IpAdapterSpec,
    T2IAdapterSpec,
    Task,
    TextEncoderSpec,
    VaeSpec,
)
from sdrt.families.table import FAMILIES, family_of

__all__ = [
    "FAMILIES",
    "ControlNetSpec",
    "DenoiserSpec",
    "Encoded",
    "Family",
    "IndexEntry",
    "IpAdapterSpec",
    "RowConditions",
    "T2IAdapterSpec",
    "Task",
    "TextEncoderSpec",
    "VaeSpec",
    "family_of",
]
