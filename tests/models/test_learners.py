"""Models with parts: blocks in one tensor of the file, parts of the vector, doublings."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from mltool.errors import InputError, UsageError
from mltool.models import checkpoint, learners
from mltool.models.embedder import Embedder, build, fingerprint

IMAGES = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0))


def model(parts: str = "", **changes: object) -> Embedder:
    settings = {
        "arch": "test_resnet",
        "pooling": "gem",
        "projection": "linear",
        "dim": 8,
        "image_size": 16,
        "resize": 16,
        "weights": None,
        "seed": 0,
    }
    return build(**settings | {"parts": parts} | changes).eval()


@pytest.mark.parametrize("projection", ["linear", "layernorm", "none"])
@pytest.mark.parametrize("parts", ["slices:count=4", "masks:count=4"])
def test_parts_change_neither_the_whole_vector_nor_the_file(parts: str, projection: str) -> None:
    how = {"projection": projection, "dim": None if projection == "none" else 8}
    plain, divided = model(**how), model(parts, **how)
    assert torch.equal(plain(IMAGES), divided(IMAGES))
    own = {name: v for name, v in divided.state_dict().items() if not name.startswith("parts.")}
    assert own.keys() == plain.state_dict().keys()
    assert all(torch.equal(own[name], value) for name, value in plain.state_dict().items())
    assert fingerprint(plain) != fingerprint(divided)


@pytest.mark.parametrize("projection", ["linear", "layernorm", "none"])
def test_a_slice_is_columns_of_the_raw_vector_at_unit_length(projection: str) -> None:
    how = {"projection": projection, "dim": None if projection == "none" else 8}
    divided = model("slices:count=4", **how)
    raw = divided(IMAGES, raw=True)
    for part, (start, stop) in enumerate(divided.parts.bounds):
        expected = functional.normalize(raw[:, start:stop])
        torch.testing.assert_close(divided(IMAGES, part=part), expected)
        torch.testing.assert_close(divided(IMAGES, part=part, raw=True), raw[:, start:stop])


@pytest.mark.parametrize("projection", ["linear", "layernorm"])
def test_other_slices_get_no_gradient(projection: str) -> None:
    divided = model("slices:count=4", projection=projection)
    divided(IMAGES, part=2).sum().backward()
    assert [
        name for name, p in divided.named_parameters() if "after" in name and p.grad is not None
    ] == [f"after.{'1.' * (projection == 'layernorm')}{kind}.2" for kind in ("weight", "bias")]
    assert next(divided.backbone.parameters()).grad is not None


def test_every_slice_at_unit_length() -> None:
    each, once = model("slices:count=4,whole=each"), model("slices:count=4")
    sides = [once(IMAGES, part=part) for part in range(4)]
    torch.testing.assert_close(each(IMAGES), torch.cat(sides, dim=1) / 2)
    assert not torch.allclose(each(IMAGES), once(IMAGES))


@pytest.mark.parametrize("projection", ["conv", "linear-bn"])
def test_projections_without_blocks_are_refused(projection: str) -> None:
    with pytest.raises(UsageError, match=f"--projection {projection}"):
        model("slices:count=4", projection=projection)
    assert model("masks:count=4", projection=projection)(IMAGES, part=1).shape == (5, 8)


def test_a_held_backbone_stands_still() -> None:
    held = model("masks:count=2").train()
    now = next(value for name, value in held.backbone.named_buffers() if "mean" in name)
    statistics = now.clone()
    held(IMAGES, part=0, hold_backbone=True).sum().backward()
    assert all(p.grad is None for p in held.backbone.parameters())
    assert held.pooling.p.grad is not None
    assert torch.equal(statistics, now)
    held(IMAGES, part=0).sum().backward()
    assert not torch.equal(statistics, now)
    assert next(held.backbone.parameters()).grad is not None


@pytest.mark.parametrize("parts", ["slices:count=4", "masks:count=4"])
def test_a_checkpoint_brings_the_parts_back(tmp_path: Path, parts: str) -> None:
    path = str(tmp_path / "m.safetensors")
    saved = model(parts)
    saved.parts.use(2)
    for name, value in saved.named_parameters():
        if name.startswith(("parts", "after")):
            value.data.normal_()
    checkpoint.write(path, saved)
    read = checkpoint.read(path)
    assert read.spec.parts == saved.spec.parts
    again = read.build_model()
    assert again.parts.in_use == 2
    for part in (None, 3):
        assert torch.equal(again(IMAGES, part=part), saved(IMAGES, part=part))
    assert "parts" not in model().spec.to_dict()


@pytest.mark.parametrize(
    ("before", "clusters", "expected"),
    [(0, 3, 3), (0, 8, 8), (4, 4, 4), (4, 2, 4), (4, 8, 8), (4, 7, 8), (4, 5, 8), (1, 2, 2)],
)
def test_counting_learners(before: int, clusters: int, expected: int) -> None:
    parts = model("masks:count=8").parts
    parts.use(before)
    assert learners.count_learners(parts, clusters, source="s.csv") == expected


@pytest.mark.parametrize(("before", "clusters", "message"), [(0, 9, "8 parts"), (2, 5, "--double")])
def test_too_many_clusters(before: int, clusters: int, message: str) -> None:
    parts = model("masks:count=8").parts
    parts.use(before)
    with pytest.raises(InputError, match=f"s.csv has {clusters} clusters.*{message}"):
        learners.count_learners(parts, clusters, source="s.csv")


def test_a_doubling_copies_what_learners_have_alone() -> None:
    names = ["after.weight.3", "after.1.bias.1", "model.after.weight.4", "parts.weight.2"]
    names += ["objective.terms.part1/0.term.loss.beta", "terms.part0/memory.term.vectors"]
    assert learners.find_sources(names, 2) == {
        "after.weight.3": "after.weight.1",
        "after.1.bias.1": "after.1.bias.0",
        "parts.weight.2": "parts.weight.1",
        "objective.terms.part1/0.term.loss.beta": "objective.terms.part0/0.term.loss.beta",
        "terms.part0/memory.term.vectors": "terms.part0/memory.term.vectors",
    }
    shared = ["backbone.after.weight.1", "after.weight", "terms.whole/0.term.proxies.weight"]
    assert not learners.find_sources([*shared, "pooling.p", "parts.in_use"], 2)
    divided = model("slices:count=4")
    blocks = [block.detach().clone() for block in divided.after.weight]
    learners.double(divided, 2)
    for number, block in enumerate(divided.after.weight):
        assert torch.equal(block, blocks[number // 2])


def test_parts_of_another_kind_or_number_start_anew() -> None:
    state = model("slices:count=4").state_dict()
    keep = learners.keep_fitting
    assert keep(state, "slices:count=4", "slices:count=4,whole=each") == state
    for other in ("slices:count=2", "masks:count=4", ""):
        assert "parts.in_use" not in keep(state, "slices:count=4", other)
        assert "after.weight" in keep(state, "slices:count=4", other)
    assert keep(model().state_dict(), "", "slices:count=4").keys() == model().state_dict().keys()
