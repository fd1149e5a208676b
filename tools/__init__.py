"""Programs that write documents and goldens of this project: `python -m tools.NAME`."""
