"""Inpainting, outpainting, enlarging and windows, in pixels and latents."""
