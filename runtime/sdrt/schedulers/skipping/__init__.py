"""Calls of the U-Net that are left out, because what came of earlier ones says enough.

A module for each published rule, about a screen long. `choice` says which rule is used when.
"""

from sdrt.schedulers.skipping.base import Call, Past, Rule, Weights
from sdrt.schedulers.skipping.choice import FEWEST_STEPS, OFF, rule_for, why_none
from sdrt.schedulers.skipping.estimate_line import EstimateLine
from sdrt.schedulers.skipping.skipping import Skipping
from sdrt.schedulers.skipping.spectrum import Spectrum

__all__ = [
    "FEWEST_STEPS",
    "OFF",
    "Call",
    "EstimateLine",
    "Past",
    "Rule",
    "Skipping",
    "Spectrum",
    "Weights",
    "rule_for",
    "why_none",
]
