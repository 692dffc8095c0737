"""Channel groups, channel importance, and the removal of channels from networks."""
