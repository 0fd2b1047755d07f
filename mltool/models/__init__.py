"""What a model is, how it is built and how it is kept."""
