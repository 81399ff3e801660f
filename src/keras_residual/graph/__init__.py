"""The graph of a Keras model, read: its nodes in order, and the calls with what takes their outputs."""
