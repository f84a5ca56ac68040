"""Measurements of students."""
