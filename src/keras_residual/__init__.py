"""Residual connections for Keras 3: any branch, any depth, any backend."""
