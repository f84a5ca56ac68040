"""Runtimes that take a bundle in: one file and one TOML of data each; found by entry point."""
