"""shapes: a small Stable Diffusion model that draws coloured shapes, and the recipe that trained it.

Nothing here is imported to serve it: ``sdrt`` reads the folder ``model/``.
"""
