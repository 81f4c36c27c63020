"""Low-rank factorization of weights."""
