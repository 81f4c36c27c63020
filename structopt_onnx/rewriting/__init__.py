"""Passes, gates, costs, the planner and the manager."""
