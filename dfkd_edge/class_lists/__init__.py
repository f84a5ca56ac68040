"""Class lists as other tools write them."""
