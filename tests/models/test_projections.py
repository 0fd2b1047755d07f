"""Every projection maps [B, C] (or maps) to [B, dim]."""

import pytest
import torch
from torch import nn

from mltool.errors import UsageError
from mltool.models.projections import PROJECTIONS, create


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize(("channels", "dim"), [(6, 6), (6, 4), (6, 9)])
def test_shapes(name: str, channels: int, dim: int) -> None:
    if name == "none" and channels != dim:
        with pytest.raises(UsageError, match=f"--dim {dim}"):
            create(name, channels=channels, dim=dim)
        return
    projection = create(name, channels=channels, dim=dim)
    maps = torch.randn(5, channels, 3, 2)
    vectors = projection.after(projection.before(maps).mean((2, 3)))
    assert vectors.shape == (5, dim)


def test_conv_before_average_pooling_is_linear_after_it() -> None:
    conv = create("conv", channels=6, dim=4).before
    maps = torch.randn(5, 6, 3, 2)
    linear = nn.functional.linear(maps.mean((2, 3)), conv.weight[:, :, 0, 0], conv.bias)
    torch.testing.assert_close(conv(maps).mean((2, 3)), linear)


def test_layernorm_has_no_parameters_of_its_own() -> None:
    layers = create("layernorm", channels=6, dim=6).after
    assert list(layers.parameters()) == []
    rows = torch.randn(4, 6) * 7 + 3
    torch.testing.assert_close(layers(rows).mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(layers(rows).std(1, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    assert len(list(create("layernorm", channels=6, dim=4).after.parameters())) == 2


def test_linear_bn_normalises_over_the_batch() -> None:
    layers = create("linear-bn", channels=6, dim=4).after
    out = layers(torch.randn(64, 6) * 9)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean linear.*there are: linear, conv"):
        create("lineer", channels=6, dim=4)
