"""From surrogate images to a student."""
