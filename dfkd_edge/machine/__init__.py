"""This machine: what it has, its caches, its threads, and how a command is interrupted."""
