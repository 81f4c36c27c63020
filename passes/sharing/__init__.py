"""Equal weights stored once."""
