"""Architectures as data, one builder a family, and the names by which users ask for them."""

from keras_residual.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
