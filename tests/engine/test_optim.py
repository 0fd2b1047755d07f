"""Rates, groups, schedules, and a state that survives a file bit for bit."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from mltool.components import parse
from mltool.engine import optim
from mltool.engine.objectives.transfer import TransferTerm
from mltool.engine.optim import OptimSettings
from mltool.errors import InputError, UsageError
from mltool.models.checkpoint import to_arrays
from mltool.models.embedder import build
from mltool.models.proxies import Proxies
from mltool.poolings.gem import GeM

SETTINGS = OptimSettings("adamw", 0.1, 0.01, 0.9, "constant", 0.0)
EVERY = ["adamw", "adam", "sgd", "rmsprop", "lars"]


class Toy(nn.Module):
    """A convolution, a gain, a scalar (GeM) and a matrix: one parameter of each shape."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.pooling = GeM()
        self.after = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.after(self.pooling(self.backbone(images)))


def toy() -> tuple[Toy, Proxies]:
    torch.manual_seed(0)
    return Toy().to(memory_format=torch.channels_last), Proxies(3, 4)


def steps(model: Toy, proxies: Proxies, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        images = torch.rand(6, 3, 8, 8, generator=generator)
        images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        (model(images) @ proxies().T).logsumexp(1).sum().backward()
        optimizer.step()


def test_groups_have_parts_rates_and_names() -> None:
    model = build(
        "test_resnet",
        pooling="gem",
        projection="linear",
        dim=8,
        image_size=32,
        resize=32,
        weights=None,
        seed=0,
    )
    proxies = Proxies(5, 8)
    settings = dataclasses.replace(SETTINGS, lr_groups={"backbone": 0.003, "proxies": 0.7})
    optimizer = optim.create(model, proxies, settings, pretrained=True)
    assert {g["group"]: g["lr"] for g in optimizer.param_groups} == {
        "backbone": 0.003,
        "pooling": 0.1,
        "projection": 0.1,
        "proxies": 0.7,
    }
    by_name = {
        name: (parameter, group)
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    assert len(by_name) == sum(1 for _ in model.parameters()) + 1
    for name, parameter in model.named_parameters():
        found, group = by_name[f"model.{name}"]
        assert found is parameter
        child = name.partition(".")[0]
        assert group["group"] == ("projection" if child == "after" else child)
    decayed = {name for name, (_, group) in by_name.items() if group["weight_decay"]}
    assert {by_name[name][0].ndim for name in decayed} == {2, 4}
    spared = by_name.keys() - decayed
    assert "objective.weight" in spared
    assert "model.pooling.p" in spared
    assert {by_name[name][0].ndim for name in spared - {"objective.weight"}} == {0, 1}


def test_layers_of_a_transfer_move_like_the_head_and_proxies_do_not() -> None:
    context = {"student_dim": 4, "teacher_dim": 5, "images": 9, "generator": torch.Generator()}
    crd = TransferTerm(parse("transfers", "crd:dim=3"), student=None, teacher=None, context=context)
    objective = nn.ModuleList([crd, Proxies(5, 8)])
    optimizer = optim.create(nn.Linear(2, 2), objective, SETTINGS, pretrained=True)
    found = {
        name: (group["group"], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in group["names"]
    }
    head = ("transfer", SETTINGS.lr, SETTINGS.weight_decay)
    for side in ("student", "teacher"):
        assert found[f"objective.0.transfer.{side}_projection.weight"] == head
        assert found[f"objective.0.transfer.{side}_projection.bias"] == (*head[:2], 0.0)
    assert found["objective.1.weight"] == ("proxies", 10 * SETTINGS.lr, 0.0)


def test_a_vector_with_axes_of_one_is_not_decayed() -> None:
    model = nn.Module()
    model.token = nn.Parameter(torch.zeros(1, 1, 16))
    model.gain = nn.Parameter(torch.zeros(16, 1, 1, 1))
    model.table = nn.Parameter(torch.zeros(1, 5, 16))
    optimizer = optim.create(model, nn.Module(), SETTINGS, pretrained=False)
    decay = {n: g["weight_decay"] for g in optimizer.param_groups for n in g["names"]}
    assert decay == {"model.token": 0.0, "model.gain": 0.0, "model.table": 0.01}


@pytest.mark.parametrize(
    ("pretrained", "backbone", "proxies", "expected"),
    [
        (False, None, None, (0.1, 0.1, 1.0)),
        (True, None, None, (0.01, 0.1, 1.0)),
        (True, 0.0, 0.0, (0.0, 0.1, 0.0)),  # zero is a rate, not "not given"
        (False, 0.5, 0.2, (0.5, 0.1, 0.2)),
    ],
)
def test_rates(pretrained, backbone, proxies, expected) -> None:
    groups = {"backbone": backbone, "proxies": proxies}
    asked = {name: rate for name, rate in groups.items() if rate is not None}
    rates = optim.choose_rates(
        dataclasses.replace(SETTINGS, lr_groups=asked), pretrained=pretrained
    )
    assert rates.keys() == set(optim.RATE_GROUPS)
    found = tuple(rates[group] for group in ("backbone", "projection", "proxies"))
    assert found == pytest.approx(expected)
    assert rates["transfer"] == rates["pooling"] == 0.1


def test_any_group_has_a_rate_of_its_own_and_others_are_refused() -> None:
    settings = dataclasses.replace(SETTINGS, lr_groups={"pooling": 0.5})
    optimizer = optim.create(*toy(), settings, pretrained=False)
    rates = {g["group"]: g["lr"] for g in optimizer.param_groups}
    assert rates == {"backbone": 0.1, "pooling": 0.5, "projection": 0.1, "proxies": 1.0}
    settings = dataclasses.replace(SETTINGS, lr_groups={"transfer": 0.5})
    with pytest.raises(UsageError, match="a rate for transfer, but nothing of that name"):
        optim.create(*toy(), settings, pretrained=False)


def test_a_module_names_the_group_of_what_it_learns() -> None:
    objective = nn.ModuleDict({"term": nn.Linear(2, 2), "plain": nn.Linear(2, 2)})
    objective["term"].group = "basis"
    inner = nn.Linear(2, 2)
    inner.group = "masks"
    objective["term"].add_module("inner", inner)
    optimizer = optim.create(nn.Linear(2, 2), objective, SETTINGS, pretrained=False)
    groups = {n: g["group"] for g in optimizer.param_groups for n in g["names"]}
    assert groups["objective.term.weight"] == "basis"
    assert groups["objective.term.inner.weight"] == "masks"
    assert groups["objective.plain.weight"] == "proxies"


@pytest.mark.parametrize(
    ("schedule", "warmup", "epoch", "factor"),
    [
        ("constant", 0.0, 0.0, 1.0),
        ("constant", 0.0, 9.99, 1.0),
        ("constant", 2.0, 0.0, 0.0005),
        ("constant", 2.0, 1.0, 0.5005),
        ("constant", 2.0, 2.0, 1.0),
        ("constant", 0.0005, 0.0, 1.0),  # shorter than its own first step: never above the rate
        ("constant", 0.01, 0.0099, 1.0),
        ("cosine", 0.0, 0.0, 1.0),
        ("cosine", 0.0, 2.5, 0.5 * (1 + math.sqrt(0.5))),
        ("cosine", 0.0, 5.0, 0.5),
        ("cosine", 0.0, 10.0, 0.0),
        ("cosine", 2.0, 6.0, 0.5),  # half of the 8 epochs after warmup
        ("cosine", 20.0, 10.0, 0.50005),  # a warmup that never ends
        ("step", 0.0, 3.3, 1.0),
        ("step", 0.0, 3.4, 0.1),
        ("step", 0.0, 6.7, 0.01),
        ("step", 0.0, 9.99, 0.01),
        ("step", 1.0, 4.1, 0.1),  # 1 + 9 / 3 = 4
    ],
)
def test_schedules_at_known_points(schedule, warmup, epoch, factor) -> None:
    model, proxies = toy()
    settings = dataclasses.replace(SETTINGS, schedule=schedule, warmup=warmup)
    optimizer = optim.create(model, proxies, settings, pretrained=True)
    optim.set_rates(optimizer, settings, epoch=epoch, epochs=10)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(group["base_lr"] * factor, abs=1e-12)
    optim.set_rates(optimizer, settings, epoch=epoch, epochs=10)  # from the base, not from itself
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factor, abs=1e-12)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_restored_optimiser_goes_on_bit_for_bit(name: str, momentum: float) -> None:
    settings = dataclasses.replace(SETTINGS, optimizer=name, momentum=momentum, lr=0.01)
    model, proxies = toy()
    optimizer = optim.create(model, proxies, settings, pretrained=False)
    steps(model, proxies, optimizer, range(3))
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    own = proxies.weight.detach().clone()
    # through numpy, as a file would: contiguous, whatever the parameters are
    saved = {k: torch.from_numpy(v.copy()) for k, v in to_arrays(optim.state(optimizer)).items()}
    steps(model, proxies, optimizer, range(3, 6))

    other, others = toy()
    other.load_state_dict(weights)
    others.load_state_dict({"weight": own})
    fresh = optim.create(other, others, settings, pretrained=False)
    optim.load_state(fresh, saved, "x.partial")
    for parameter in other.parameters():
        for key, value in fresh.state[parameter].items():
            if key != "step":
                assert value.shape == parameter.shape
                assert value.stride() == parameter.stride()
    steps(other, others, fresh, range(3, 6))
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert torch.equal(proxies.weight, others.weight)
    again = optim.state(fresh)
    for key, value in optim.state(optimizer).items():
        assert torch.equal(value, again[key]), key


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_state_of_another_model_is_refused(name: str) -> None:
    settings = dataclasses.replace(SETTINGS, optimizer=name)
    model, proxies = toy()
    optimizer = optim.create(model, proxies, settings, pretrained=False)
    steps(model, proxies, optimizer, range(1))
    saved = optim.state(optimizer)
    key = next(k for k in saved if k.startswith("model.after.weight/") and saved[k].ndim)
    for wrong in (torch.zeros(9, 9), torch.zeros(())):
        with pytest.raises(InputError, match=r"x\.partial.*model\.after\.weight"):
            optim.load_state(optimizer, saved | {key: wrong}, "x.partial")
    with pytest.raises(InputError, match="does not have"):
        optim.load_state(optimizer, saved | {"model.other/exp_avg": torch.zeros(1)}, "x.partial")


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(UsageError, match="anything to learn"):
        optim.create(nn.Flatten(), nn.Module(), SETTINGS, pretrained=False)


@pytest.mark.parametrize("name", EVERY)
def test_cleared_moments_are_those_of_a_new_parameter(name: str) -> None:
    """Cleared after two steps, every parameter moves as under an optimiser made then."""
    settings = dataclasses.replace(SETTINGS, optimizer=name)
    model, proxies = toy()
    optimizer = optim.create(model, proxies, settings, pretrained=False)
    steps(model, proxies, optimizer, range(2))
    names = [name for group in optimizer.param_groups for name in group["names"]]
    optim.clear_moments(optimizer, names)
    other, others = copy.deepcopy((model, proxies))
    fresh = optim.create(other, others, settings, pretrained=False)
    for each, of, by in ((model, proxies, optimizer), (other, others, fresh)):
        steps(each, of, by, range(2, 4))
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, another)
    with pytest.raises(KeyError):
        optim.clear_moments(optimizer, ["model.stranger"])


def test_moments_of_other_parameters_stay() -> None:
    model, proxies = toy()
    optimizer = optim.create(model, proxies, SETTINGS, pretrained=False)
    steps(model, proxies, optimizer, range(2))
    before = {key: value.clone() for key, value in optim.state(optimizer).items()}
    optim.clear_moments(optimizer, ["model.after.weight"])
    changed = [k for k, v in optim.state(optimizer).items() if not torch.equal(v, before[k])]
    assert {key.partition("/")[0] for key in changed} == {"model.after.weight"}
    assert len(changed) == 3  # two moments and the count
