"""When a model gives no answer: constants that --help states too, so no numpy here."""

UNKNOWN = "unknown"
FITTED_ON = "clean held-out surrogate images"
"""What export reads the reject threshold off."""
SHARE_REJECTED = 0.05
"""Of the right answers on those, so many lie below the threshold that export fits (ours)."""
