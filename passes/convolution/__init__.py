"""Convolutions and what surrounds them: exact rewrites, and other layers fitted in their place."""
