"""The rules of advice, and the checks that they are made of."""
