"""Validation: how good the student is, beside its teacher; importing it loads nothing."""
