"""Models: their description, building, and checkpoint files."""
