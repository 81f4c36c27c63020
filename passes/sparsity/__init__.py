"""Passes about weights with zeros in them."""
