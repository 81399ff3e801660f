"""One residual connection: the layer, and the layers of which it is made."""
