"""A bundle on disk: what it holds, how it is written, opened and replaced."""
