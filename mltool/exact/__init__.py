"""Exact search: all scores, ranks and nearest rows, the same whatever the block shape."""
