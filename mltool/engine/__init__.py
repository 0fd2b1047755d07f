"""Data, objectives and the one training loop."""
