"""Many residual connections in a row."""
