"""What a search may choose: channels of each group, and perhaps the recipe."""
