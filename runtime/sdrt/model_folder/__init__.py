"""Model folders: finding or downloading them, exporting checkpoints, and checking the files."""
