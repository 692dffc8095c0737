"""A run's report as one HTML page that opens from disk, without a network."""
