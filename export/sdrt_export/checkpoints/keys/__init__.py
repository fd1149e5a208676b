"""Tables that map CompVis', Stability's and OpenCLIP's tensor names to those of diffusers and transformers."""
