"""Proxies: rows in class order, of unit length, reproducible."""

import torch

from mltool.models.proxies import Proxies


def test_rows_are_unit_vectors_in_class_order() -> None:
    proxies = Proxies(4, 6, per_class=3)
    assert proxies().shape == (12, 6)
    assert proxies().dtype == torch.float32
    torch.testing.assert_close(proxies().norm(dim=1), torch.ones(12))
    assert proxies.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert set(proxies.state_dict()) == {"weight"}  # the labels follow from the counts


def test_the_length_of_a_row_does_not_matter() -> None:
    proxies = Proxies(3, 5)
    before = proxies().detach()
    with torch.no_grad():
        proxies.weight *= 7
    torch.testing.assert_close(proxies().detach(), before)
    proxies()[0].sum().backward()
    along = (proxies.weight.grad * proxies.weight).sum(1)
    torch.testing.assert_close(along, torch.zeros(3), atol=1e-6, rtol=0)


def test_half_precision_is_widened() -> None:
    assert Proxies(3, 5).half()().dtype == torch.float32


def test_the_seed_decides() -> None:
    torch.manual_seed(3)
    first = Proxies(3, 5).weight
    torch.manual_seed(3)
    assert torch.equal(first, Proxies(3, 5).weight)
    assert not torch.equal(first, Proxies(3, 5).weight)
