"""The memory of openly licensed drawings that synthesis may start from."""
