"""Baselines: ways to lower a step's memory without a search, each usable alone."""
