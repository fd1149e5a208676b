"""Derives configs from the shapes of a checkpoint's tensors."""
