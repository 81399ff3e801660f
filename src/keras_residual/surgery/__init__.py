"""Surgery on models: copies of a user's model, with its weights, whose layers are connected differently."""
