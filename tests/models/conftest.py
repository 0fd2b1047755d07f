"""Tiny models for the tests of this folder."""

from collections.abc import Callable

import pytest
import torch

from mltool.models.embedder import Embedder, build


@pytest.fixture
def tiny() -> Callable[..., Embedder]:
    """`build` with small defaults."""

    def make(arch: str = "test_resnet", **changes: object) -> Embedder:
        settings = {
            "pooling": "gem",
            "projection": "linear",
            "dim": 8,
            "image_size": 32,
            "resize": 36,
            "weights": None,
            "seed": 0,
        }
        return build(arch, **settings | changes)

    return make


@pytest.fixture
def batch() -> torch.Tensor:
    """Random images, uint8 [4, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
