"""A run on disk: its folder, lock, key, log, checkpoints and surrogate images."""
