"""What a file that others may have written is allowed to build, import and connect to."""
