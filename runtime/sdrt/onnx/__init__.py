"""ONNX Runtime: providers, sessions, buffers, and what its errors mean."""
