"""Execution providers: what each is, how to run a model on it, and how to know that it ran there.

Whatever a provider is reached by (a session, a plugin, another runtime, a phone), what comes back
is the same: where each node was placed, and the outputs, to be compared with the CPU's. Importing
this package imports nothing.
"""
