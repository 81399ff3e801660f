"""How the streams of a stack are read, carried on and written to: one topology a file."""
