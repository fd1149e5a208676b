"""ONNX Runtime: providers, sessions, buffers and error messages."""
