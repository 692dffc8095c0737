"""The commands: each parses its flags, calls one package and prints the result."""
