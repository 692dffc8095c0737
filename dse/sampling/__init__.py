"""The search space, and the samplers that draw candidates from it."""
