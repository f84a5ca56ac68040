"""Embedded weights: teacher, decoder, start of the default student, each with a model card."""

from pathlib import Path

TEACHER = Path(__file__).parent / "teacher"
DECODER = Path(__file__).parent / "decoder"
EXEMPLARS = DECODER / "exemplars"
"""Drawings that synthesis starts from: one sheet an icon set, and their names."""
START_WEIGHTS = Path(__file__).parent / "student" / "mini-start.safetensors"
"""The default student's: distilled once from the teacher, without classes."""
