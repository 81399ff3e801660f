"""Training: from a configuration to a run directory with model, history, metrics and report."""
