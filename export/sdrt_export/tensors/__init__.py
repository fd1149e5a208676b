"""The tensors of safetensors files: mapped, read when they are asked for, and as the files store them."""
