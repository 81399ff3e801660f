"""Where the residual connections of a model are, and what stands for a block."""
