"""Bundles: folders from which programs without Python make images, with ONNX Runtime in any language."""
