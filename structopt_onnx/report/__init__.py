"""Records rendered as JSON and text."""
