"""What a config.json does not say: in files beside it, or in shapes."""
