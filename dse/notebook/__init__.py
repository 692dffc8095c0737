"""Finished and running searches in notebooks: data frames and plots."""
