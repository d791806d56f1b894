"""Small models exported to ONNX with the tools people use, and what effc makes of the files."""
