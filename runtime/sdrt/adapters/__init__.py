"""Adapters such as LoRA: what they change in a model's weights, and how the changes get into its sessions."""
