"""Surrogate images: decoders, samplers, views and the store."""
