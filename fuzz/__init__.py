"""Fuzzers of the Python side; those of the C core are in c/. See README.md."""
