"""The pictures of a user: labelled ones to measure on, a few to learn from."""
