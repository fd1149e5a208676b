"""Graphs from layers: an ONNX graph under construction, and how each target writes a layer."""
