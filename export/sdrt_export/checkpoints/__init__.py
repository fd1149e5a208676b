"""Checkpoints: where tensors and configs come from. Nothing here needs torch."""
