"""`python -m keras_residual.cli`."""

from keras_residual.cli import main

main()
