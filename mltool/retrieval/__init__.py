"""Nearest neighbours, metrics and what is done to rankings; no torch at import."""
