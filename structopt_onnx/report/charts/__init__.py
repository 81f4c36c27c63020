"""Charts of a run: what they show, apart from what draws them."""
