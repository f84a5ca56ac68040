"""Backends that turn a student into a deployable model, found by entry point."""
