"""What a file from an untrusted source may build, import and connect to."""
