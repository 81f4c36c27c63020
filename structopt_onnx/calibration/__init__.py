"""Sample inputs and activation statistics."""
