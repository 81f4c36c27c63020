"""The commands as functions: optimize, explain, validate, benchmark, inspect, bisect, densify."""
