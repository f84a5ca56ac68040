"""Synthesis: (prompts, teacher) -> surrogate images. `synthesizers.py` is the table of ways.

Nothing is imported here: the table is read before torch is loaded.
"""
