"""Deep metric learning and image retrieval as shell pipelines."""

__version__ = "0.1.0"
