"""shapes: a small Stable Diffusion model that draws coloured shapes, and the code that trained it.

``sdrt`` reads only the folder ``model/``, and imports nothing from here.
"""
