"""Runs `sdrt benchmark` on the tiny model."""

from __future__ import annotations

from click.testing import CliRunner, Result

from sdrt.cli import main

# One warm-up and one measured generation, of few steps.
FAST = ("--steps", "3", "--time-limit", "0", "--threads", "1", "--provider", "cpu", "--scheduler", "euler")


def benchmark(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["benchmark", *arguments], prog_name="sdrt")
