"""The search: its space, its trials and what they found."""
