"""LoRA and LyCORIS files: their keys, and the arithmetic of each kind, in NumPy."""
