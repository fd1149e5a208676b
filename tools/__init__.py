"""Programs that write this project's generated documents and goldens: `python -m tools.NAME`."""
