"""Deployment: from a student to a bundle that a device can trust."""
