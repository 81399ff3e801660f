"""How a connection joins its two paths."""
