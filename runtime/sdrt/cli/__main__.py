"""`python -m sdrt.cli`: the `sdrt` command where its script is not on the path."""

from . import main

main(prog_name="sdrt")
