"""Configs that are read off the shapes of a checkpoint's tensors."""
