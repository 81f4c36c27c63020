"""Recovery: the weights of a model fine-tuned to what another one makes of the same inputs.

Needs torch, which comes with the extra ``export``; nothing else here does.
"""
