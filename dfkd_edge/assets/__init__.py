"""Embedded weights: teacher, decoder, start of the default student, each with a model card."""
