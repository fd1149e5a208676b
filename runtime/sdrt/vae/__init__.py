"""The VAE, whole and in tiles, and previews."""
