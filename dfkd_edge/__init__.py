"""dfkd-edge: from a list of class names to a compact image classifier, without a single image."""

__version__ = "0.1.0"
