"""The commands: each reads its flags, calls one room and prints what comes back."""
