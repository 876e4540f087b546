"""Models of other tools: imported weights, ONNX files, bioimage.io packages."""
