"""ComfyUI: a graph of nodes, in the text `prompt`, or as the editor shows it in `workflow`.

`graph` holds the nodes and follows their links. `samplers` finds the nodes that sample. `conditioning`, `models` and
`latents` read what flows into one: the prompts, the model with its LoRAs, and the size. `output` reads what comes
behind it. `reader` puts it together.
"""
