"""From a finished run to a device: choose a candidate, export it, load it."""
