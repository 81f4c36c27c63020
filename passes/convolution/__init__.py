"""Exact rewrites of convolutions: strides, pools, filters and layouts."""
