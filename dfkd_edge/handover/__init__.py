"""Handover: what a bundle holds for a runtime, such as DeepStream or Triton, to take it in."""
