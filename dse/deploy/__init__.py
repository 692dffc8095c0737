"""From a finished run to a device: choose a candidate, export it, load it."""

DEFAULT_MAX_DROP = 3.0
"""Largest loss of accuracy against the unpruned network, in points, if none is given."""
