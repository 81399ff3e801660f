"""Networks by name: architectures as data, the builder that makes them, and what is known of each."""

from keras_residual.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
