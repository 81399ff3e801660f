"""`python -m keras_residual_cli`."""

from keras_residual_cli import main

main()
