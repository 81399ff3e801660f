"""Readers of one format each: nothing in a file is executed, and nothing outside it is read."""
