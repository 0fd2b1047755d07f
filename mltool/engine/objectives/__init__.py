"""What a run minimises: everything that is neither model nor data."""
