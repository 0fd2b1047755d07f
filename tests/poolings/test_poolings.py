"""Poolings against plain loops and limits; one parametrised test covers the family."""

import itertools
import math

import pytest
import torch

from mltool import components
from mltool.poolings.gem import GeM

MAPS = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0)) * 2


def pool(text: str, maps: torch.Tensor) -> torch.Tensor:
    return components.load("poolings", text, channels=maps.shape[1])(maps)


@pytest.mark.parametrize("name", components.names("poolings"))
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2)])
def test_contract_of_the_family(name: str, shape: tuple[int, int]) -> None:
    maps = torch.rand(2, 5, *shape)
    maps.requires_grad_()
    out = pool(name, maps)
    assert out.shape == (2, 5 * math.prod(shape) if name == "flatten" else 5)
    out.sum().backward()
    assert maps.grad.isfinite().all()
    last = maps.detach().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pool(name, last), out.detach())
    for half in (torch.float16, torch.bfloat16):
        assert pool(name, 200 * maps.detach().to(half)).isfinite().all()
    both = torch.cat([maps, maps * 3]).detach()
    torch.testing.assert_close(pool(name, both)[:2], out.detach())  # images do not mix


def test_against_loops() -> None:
    for b in range(3):
        for c in range(5):
            values = MAPS[b, c].flatten().tolist()
            mean, most = sum(values) / 24, max(values)
            assert pool("avg", MAPS)[b, c].item() == pytest.approx(mean, rel=1e-5)
            assert pool("max", MAPS)[b, c].item() == pytest.approx(most)
            assert pool("avg-max", MAPS)[b, c].item() == pytest.approx(mean + most, rel=1e-5)
            cubes = (sum(v**3 for v in values) / 24) ** (1 / 3)
            assert pool("gem", MAPS)[b, c].item() == pytest.approx(cubes, rel=1e-5)
    assert torch.equal(pool("flatten", MAPS)[1, 24:48], MAPS[1, 1].flatten())


def test_gem_lies_between_mean_and_maximum() -> None:
    torch.testing.assert_close(pool("gem:p=1", MAPS), pool("avg", MAPS))
    torch.testing.assert_close(pool("gem:p=60", MAPS), pool("max", MAPS), rtol=0.06, atol=0)
    between = [pool(f"gem:p={p}", MAPS) for p in (1, 2, 3, 5, 8)]
    assert all((a <= b + 1e-6).all() for a, b in itertools.pairwise(between))


def test_gem_learns_p_and_survives_dead_channels() -> None:
    gem = GeM()
    out = gem(torch.cat([MAPS, torch.full_like(MAPS, -1.0)]).requires_grad_())
    assert out[3:].allclose(torch.full((3, 5), 1e-6))  # nothing but eps
    out.sum().backward()
    assert gem.p.grad.isfinite()
    assert gem.p.grad > 0
    gem.p.grad = None
    gem(MAPS).sum().backward()
    slope = (GeM(p=3.05)(MAPS).sum() - GeM(p=2.95)(MAPS).sum()).item() / 0.1
    assert gem.p.grad.item() == pytest.approx(slope, rel=0.01)


def test_gem_is_computed_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = GeM()(MAPS.bfloat16() * 300)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, GeM()((MAPS.bfloat16() * 300).float()))
