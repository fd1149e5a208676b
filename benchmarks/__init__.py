"""Measurements of sdrt beside other systems: `python -m benchmarks` lists the commands."""
