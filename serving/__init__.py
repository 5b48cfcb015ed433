"""Serving: export to ONNX, the Triton model repository, the Bento service and its client."""
