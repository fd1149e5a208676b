"""Names to names: what CompVis', Stability's and OpenCLIP's names are in diffusers and transformers, table by table."""
