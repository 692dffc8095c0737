"""Channel groups, their importance, and physically smaller networks."""
