"""The `iqrun` command: each command parses, calls the public `iqrun`, and prints."""
