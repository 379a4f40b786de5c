"""TensorRT and TensorRT for RTX: engines built of a bundle's graphs, kept, and executed."""
