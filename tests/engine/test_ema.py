"""The moving average against its own recursion, and that the model gets its weights back."""

import pytest
import torch
from torch import nn

from mltool.engine.ema import Ema


def model() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return net.to(memory_format=torch.channels_last)


def test_averages_follow_the_recursion() -> None:
    net = model()
    ema = Ema(net, decay=0.5)
    weight = net[0].weight
    expected = weight.detach().double().clone()
    for t in range(1, 9):
        with torch.no_grad():
            weight += t
        ema.update(net)
        decay = min(0.5, (1 + t) / (10 + t))  # 2/11, 3/12, ... up to 0.5 at t = 8
        expected = decay * expected + (1 - decay) * weight.detach().double()
    torch.testing.assert_close(ema.averages["0.weight"].double(), expected, atol=1e-5, rtol=1e-6)
    assert ema.updates == 8
    assert ema.averages["0.weight"].stride() == weight.stride()
    assert set(ema.averages) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_applied_lends_the_averages_and_gives_the_weights_back() -> None:
    net = model()
    ema = Ema(net, decay=0.9)
    with torch.no_grad():
        net[0].weight.zero_()
    own = net[0].weight
    with ema.apply_to(net):
        assert net[0].weight is own  # the optimiser still holds the same parameter
        assert torch.equal(own, ema.averages["0.weight"])
        assert own.any()
    assert not own.any()
    with pytest.raises(KeyError), ema.apply_to(net):
        raise KeyError
    assert not own.any()


def test_the_start_is_forgotten() -> None:
    net = model()
    ema = Ema(net, decay=0.999)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    for _ in range(100):
        ema.update(net)
    torch.testing.assert_close(ema.averages["0.weight"], net[0].weight.detach(), atol=1e-4, rtol=0)
