"""One residual connection, `Residual`, and its parts: branch, shortcut, merge, scales, norms and regularizers."""
