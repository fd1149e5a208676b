"""What inpainting, outpainting and tiling mean in pixels and latents."""
