"""The model as a graph: load, save, look, patch."""
