"""Student to graph: ONNX, precisions, calibration, and the lint of graphs."""
