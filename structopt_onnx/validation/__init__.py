"""Comparing the outputs of two models."""
