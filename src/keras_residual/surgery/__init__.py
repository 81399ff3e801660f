"""A model becomes another model: what the layers are stays, how they are connected changes."""
