"""From a model to a bundle: reading heads, building graphs, exporting the body."""
