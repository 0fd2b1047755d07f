"""Metrix, loss by loss and level by level, against loops over plain numbers."""

import math
from collections.abc import Callable

import pytest
import torch
from tiny_runs import build_objective, in_turn
from tiny_runs import model as tiny_model
from torch import Generator, Tensor, nn
from torch.nn import functional

from mltool import components
from mltool.engine.data import Batch
from mltool.engine.objectives import mixing
from mltool.engine.objectives.memory import MemorySettings
from mltool.engine.objectives.mixing import ITSELF, Mixture
from mltool.engine.objectives.objective import Objective
from mltool.engine.objectives.pair_loss import PairTerm, build_pairs
from mltool.engine.objectives.step_outputs import BatchSide, Comparison
from mltool.errors import UsageError
from mltool.losses import Pairs
from mltool.mixups import Mixup
from mltool.models import backbones
from mltool.models.embedder import Embedder

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 0])  # class 3 has one member, class 4 none
CLASSES, DIM = 5, 8

Row = list[tuple[float, float]]  # (similarity, y) of an anchor's mixed examples


def contrastive(rows: list[Row]) -> float:
    return mean(sum(y * -s + (1 - y) * max(s - 0.5, 0) for s, y in row) for row in rows)


def binomial_set(rows: list[Row]) -> float:
    return mean(both(row, -2, 0.5, 40, 0.5, divide=False) for row in rows)


def binomial_pairs(rows: list[Row]) -> float:
    def one(row: Row) -> float:
        pull = [y * math.log1p(math.exp(-2 * (s - 0.5))) for s, y in row if y > 0]
        push = [(1 - y) * math.log1p(math.exp(40 * (s - 0.5))) for s, y in row if y < 1]
        return mean(pull) + mean(push)

    return mean(one(row) for row in rows)


def multi_similarity(rows: list[Row]) -> float:
    return mean(both(row, -2, 0.5, 50, 0.5, divide=True) for row in rows)


def proxy_anchor(rows: list[Row]) -> float:
    pull = [math.log1p(sum(y * math.exp(-32 * (s - 0.1)) for s, y in row)) for row in rows]
    push = [math.log1p(sum((1 - y) * math.exp(32 * (s + 0.1)) for s, y in row)) for row in rows]
    present = sum(any(y > 0 for _, y in row) for row in rows)
    return sum(pull) / max(present, 1) + mean(push)


def nca(rows: list[Row], *, scale: float = 1.0) -> float:
    def one(row: Row) -> float:
        pull = sum(y * math.exp(2 * scale * s) for s, y in row)
        every = sum(math.exp(2 * scale * s) for s, _ in row)
        return -math.log(pull / every) if pull else 0.0

    return mean(one(row) for row in rows)


def proxy_nca(rows: list[Row]) -> float:
    def one(row: Row) -> float:
        pull = sum(y * math.exp(2 * s) for s, y in row)
        push = sum((1 - y) * math.exp(2 * s) for s, y in row)
        return math.log(push / pull) if pull and push else 0.0

    return mean(one(row) for row in rows)


def both(row: Row, alpha: float, low: float, beta: float, high: float, *, divide: bool) -> float:
    pull = math.log1p(sum(y * math.exp(alpha * (s - low)) for s, y in row))
    push = math.log1p(sum((1 - y) * math.exp(beta * (s - high)) for s, y in row))
    return pull / (abs(alpha) if divide else 1) + push / (beta if divide else 1)


def mean(values) -> float:
    values = list(values)
    return sum(values) / max(len(values), 1)


SEEDS_TABLE: dict[str, Callable[[list[Row]], float]] = {
    "contrastive": contrastive,
    "binomial-deviance": binomial_pairs,
    "binomial-deviance:form=set": binomial_set,
    "multi-similarity": multi_similarity,
    "proxy-anchor": proxy_anchor,
    "nca": nca,
    "proxy-nca": proxy_nca,
    "proxy-nca-pp": lambda rows: nca(rows, scale=9.0),
}
ON_PROXIES = {"proxy-nca", "proxy-nca-pp"}
STAGES = ("embedding", "input", "feature", "feature:stage=layer2")
DEFINED = [
    (loss, level)
    for loss in SEEDS_TABLE
    for level in STAGES
    if level == "embedding" or loss not in ON_PROXIES
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return tiny_model(image_size=64, resize=64, dim=DIM).eval()


def images() -> Tensor:
    """Noise on a ground of its own for each image: alike inside a class."""
    generator = Generator().manual_seed(0)
    ground = 60 * LABELS[:, None, None, None] * torch.tensor([1, 0.2, 0.6])[:, None, None]
    noise = torch.randint(90, (len(LABELS), 3, 64, 64), generator=generator)
    return (ground + noise).clamp(max=255).to(torch.uint8)


def batch(
    labels: Tensor = LABELS, pictures: Tensor | None = None, weights: Tensor | None = None
) -> Batch:
    given = images() if pictures is None else pictures
    rows = torch.arange(len(labels))
    columns = {} if weights is None else {"weight": weights}
    return Batch(given, labels, rows, draws=torch.zeros_like(rows), columns=columns)


def objective(loss: str, level: str, *, miner: str | None = None, **settings) -> Objective:
    torch.manual_seed(0)
    return build_objective(loss, miner=miner, classes=CLASSES, dim=DIM, mixup=level, **settings)


def mixup_of(one: Objective) -> Mixup:
    return one.terms["0/mixed"].mixup


def draw(anchors: BatchSide, candidates: BatchSide, pairs: Pairs, mixup: Mixup) -> Mixture:
    """The mixture of the first step."""
    generator = Generator().manual_seed(hash((0, 0)))
    return mixing.draw_mixture(Comparison(anchors, candidates, pairs), mixup, generator=generator)


def text(level: str, settings: str) -> str:
    return f"{level}{',' if ':' in level else ':'}{settings}"


def seen_by(model: Embedder, stage: str, pictures: Tensor) -> Tensor:
    """The maps at a stage, by the layers themselves."""
    if stage == "input":
        return pictures.float()
    net = model.backbone
    x = (pictures.float() - model.mean) * model.scale
    x = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(x))))))
    return x if stage == "layer2" else net.layer4(net.layer3(x))


def rest(model: Embedder, stage: str, values: Tensor) -> Tensor:
    """From maps at a stage to unit vectors, by the layers themselves."""
    if stage == "input":
        return model(values)
    if stage == "layer2":
        values = model.backbone.layer4(model.backbone.layer3(values))
    return functional.normalize(model.after(model.pooling(values)))


def remade(
    one: Objective, model: nn.Module, weights: Tensor | None = None
) -> tuple[Mixture, Pairs, BatchSide]:
    """The mixture of the first step, and pairs by an explicit way to each mixed vector."""
    term, mixup = one.terms["0"], mixup_of(one)
    anchors, candidates = term.sides(BatchSide(model(images()), LABELS, weights))
    mixture = draw(anchors, candidates, build_pairs(anchors, candidates), mixup)
    stage = mixup.stage
    rows = candidates.vectors if stage is None else seen_by(model, stage, images())
    of_anchor = anchors.vectors if stage is None else rows
    mixed = []
    for a, k in torch.ones_like(mixture.first).nonzero().tolist():
        x, lam = int(mixture.first[a, k]), mixture.lam[a, k]
        first = of_anchor[a] if x == ITSELF else rows[x]
        mixed.append(lam * first + (1 - lam) * rows[mixture.second[a, k]])
    vectors = torch.stack(mixed) if stage is None else rest(model, stage, torch.stack(mixed))
    vectors = functional.normalize(vectors).reshape(*mixture.first.shape, -1)
    sim = (anchors.vectors[:, None] * vectors).sum(dim=2)
    return mixture, Pairs(sim, mixture.pos, mixture.neg), anchors


def as_rows(pairs: Pairs) -> list[Row]:
    """Plain numbers, without padding; y is the positive weight, 1 - y the negative one."""
    rows = []
    for sim, pos, neg in zip(*(m.tolist() for m in pairs), strict=True):
        found = [(s, y) for s, y, n in zip(sim, pos, neg, strict=True) if y + n > 0]
        assert all(y + n == pytest.approx(1) for y, n in zip(pos, neg, strict=True) if y + n > 0)
        rows.append(found)
    return rows


@pytest.mark.parametrize("pairs", ["pos-neg", "pos-neg+anchor-neg"])
@pytest.mark.parametrize(("loss", "level"), DEFINED)
def test_the_mixed_loss_is_the_loop_over_its_definition(
    embedder: Embedder, loss: str, level: str, pairs: str
) -> None:
    if loss == "proxy-anchor" and level != "embedding" and "anchor" in pairs:
        pytest.skip("its anchors are proxies, the examples images")
    one = objective(loss, text(level, f"per_anchor=3,pairs={pairs},weight=0.25"))
    with torch.no_grad():
        values = in_turn(one)(batch(), embedder)
        mixture, made, _ = remade(one, embedder)
    assert int((mixture.pos + mixture.neg > 0).sum()) > 5
    wanted = 0.25 * SEEDS_TABLE[loss](as_rows(made))
    name = loss.partition(":")[0]
    assert float(values[f"{name}/mixed"]) == pytest.approx(wanted, rel=2e-4, abs=2e-5)
    assert list(values) == [name, f"{name}/mixed"]
    plain = build_objective(loss, classes=CLASSES, dim=DIM)
    plain.load_state_dict(one.state_dict())  # what is mixed brings no state, saves nothing twice
    with torch.no_grad():
        assert values[name] == in_turn(plain)(batch(), embedder)[name]


@pytest.mark.parametrize(("loss", "level"), DEFINED)
def test_the_gradient_is_that_of_the_explicit_way(
    embedder: Embedder, loss: str, level: str
) -> None:
    one = objective(loss, text(level, "per_anchor=2"))
    name = loss.partition(":")[0]
    parameters = [p for p in [*embedder.parameters(), *one.parameters()] if p.requires_grad]
    ours = in_turn(one)(batch(), embedder)[f"{name}/mixed"]
    _, made, anchors = remade(one, embedder)
    theirs = 0.4 * one.terms["0"].weigh(made, anchors)
    found = [torch.autograd.grad(v, parameters, allow_unused=True) for v in (ours, theirs)]
    largest = 0.0
    for one_gradient, other in zip(*found, strict=True):
        if one_gradient is None or other is None:
            assert one_gradient is other
            continue
        scale = float(other.abs().max())
        torch.testing.assert_close(one_gradient, other, rtol=1e-3, atol=1e-3 * scale + 1e-6)
        largest = max(largest, scale)
    assert largest > 1e-4


def unit_rows(count: int, *, seed: int) -> Tensor:
    generator = Generator().manual_seed(seed)
    rows = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return functional.normalize(rows, dim=1)


def example(
    term: PairTerm, settings: str = "per_anchor=none"
) -> tuple[Mixture, Pairs, BatchSide, BatchSide]:
    """A mixture of embeddings in float64, its clean pairs and the two sides."""
    several = BatchSide(unit_rows(len(LABELS), seed=0), LABELS)
    sides = (term.declared.anchors, term.declared.candidates)
    if sides == ("batch", "batch"):
        anchors, candidates = several, several
    else:
        proxies = BatchSide(unit_rows(CLASSES, seed=1), torch.arange(CLASSES))
        anchors, candidates = (proxies, several) if sides[0] == "proxies" else (several, proxies)
    clean = build_pairs(anchors, candidates)
    mixup = components.load("mixups", f"embedding:{settings}")()
    compared = Comparison(anchors, candidates, clean)
    mixture = mixing.draw_mixture(compared, mixup, generator=Generator().manual_seed(0))
    return mixture, clean, anchors, candidates


def term_of(loss: str) -> PairTerm:
    torch.manual_seed(0)
    return PairTerm(components.parse("losses", loss), classes=CLASSES, dim=4).double()


MIXABLE = [
    *SEEDS_TABLE,
    *("arcface", "cosface", "normalized-softmax"),
    *("circle", "fastap", "generalized-lifted-structure", "info-nce", "margin", "nt-xent"),
    *("supcon", "triplet"),
]


@pytest.mark.parametrize("loss", MIXABLE)
def test_every_example_mixed_with_itself_is_the_clean_loss(loss: str) -> None:
    term = term_of(loss)
    _, clean, anchors, candidates = example(term)
    columns = torch.arange(clean.sim.shape[1]).expand(clean.sim.shape)
    share = torch.rand(clean.sim.shape, dtype=torch.float64)
    same = Mixture(columns, columns, share, clean.pos, clean.neg)
    mixed = mixing.compare_embeddings(same, clean.sim, candidates.vectors)
    torch.testing.assert_close(mixed.sim, clean.sim)
    torch.testing.assert_close(term.weigh(mixed, anchors), term.weigh(clean, anchors))


@pytest.mark.parametrize("loss", MIXABLE)
def test_swapping_the_two_examples_changes_nothing(loss: str) -> None:
    term = term_of(loss)
    mixture, clean, anchors, candidates = example(term)
    swapped = mixture._replace(first=mixture.second, second=mixture.first, lam=1 - mixture.lam)
    one, other = (
        term.weigh(mixing.compare_embeddings(m, clean.sim, candidates.vectors), anchors)
        for m in (mixture, swapped)
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("loss", MIXABLE)
@pytest.mark.parametrize("share", [1.0, 0.0])
def test_at_the_ends_only_positives_or_only_negatives_are_left(loss: str, share: float) -> None:
    """Each clean positive stands there as often as its anchor has negatives, and vice versa."""
    term = term_of(loss)
    mixture, clean, anchors, candidates = example(term)
    there = ((mixture.pos + mixture.neg) > 0).double()
    end = mixture._replace(
        lam=torch.full_like(mixture.lam, share), pos=share * there, neg=(1 - share) * there
    )
    found = term.weigh(mixing.compare_embeddings(end, clean.sim, candidates.vectors), anchors)
    kept, others = (clean.pos, clean.neg) if share else (clean.neg, clean.pos)
    side = kept * others.count_nonzero(dim=1)[:, None]
    repeated = [row.repeat_interleave(n.long()) for row, n in zip(clean.sim, side, strict=True)]
    sim = nn.utils.rnn.pad_sequence(repeated, batch_first=True)
    ones = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in repeated], batch_first=True)
    pos, neg = (ones, torch.zeros_like(ones)) if share else (torch.zeros_like(ones), ones)
    torch.testing.assert_close(found, term.weigh(Pairs(sim, pos, neg), anchors))


@pytest.mark.parametrize("loss", MIXABLE)
def test_gradients_and_padding(loss: str) -> None:
    term = term_of(loss)
    mixture, clean, anchors, candidates = example(term, "per_anchor=3")
    mixed = mixing.compare_embeddings(mixture, clean.sim, candidates.vectors)
    sim = mixed.sim.detach().requires_grad_()
    if loss != "circle":  # its paces have no gradient, by design
        assert torch.autograd.gradcheck(lambda s: term.weigh(mixed._replace(sim=s), anchors), sim)
    value = term.weigh(mixed._replace(sim=sim), anchors)
    garbage, nothing = torch.rand(len(sim), 2), torch.zeros(len(sim), 2)
    padded = Pairs(
        torch.cat([sim, garbage.double().requires_grad_()], dim=1),
        torch.cat([mixed.pos, nothing], dim=1),
        torch.cat([mixed.neg, nothing], dim=1),
    )
    torch.testing.assert_close(term.weigh(padded, anchors), value)
    (gradient,) = torch.autograd.grad(term.weigh(padded, anchors), padded.sim)
    assert gradient.isfinite().all()
    assert not gradient[:, -2:].any()
    assert gradient.any()


# levels where a loss takes mixed examples with a usable default: input, feature, embedding
TABLE = {
    "arcface": "--e",
    "binomial-deviance": "ife",
    "circle": "ife",
    "contrastive": "ife",
    "cosface": "--e",
    "fastap": "Ife",
    "generalized-lifted-structure": "Ife",
    "info-nce": "Ife",
    "lifted-structure": "---",
    "margin": "ife",
    "multi-similarity": "ife",
    "mutual-information": "---",
    "n-pair": "---",
    "nca": "Ife",
    "normalized-softmax": "--e",
    "nt-xent": "Ife",
    "proxy-anchor": "ife",
    "proxy-nca": "--e",
    "proxy-nca-pp": "--e",
    "soft-triple": "---",
    "supcon": "Ife",
    "triplet": "Ife",
}


def works(loss: str, level: str) -> bool:
    try:
        objective(loss, level)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("loss", TABLE)
def test_the_table_of_what_is_defined(loss: str) -> None:
    """A capital I takes two examples for each anchor at least: one alone cancels itself out."""
    row = ""
    for level in ("input", "feature", "embedding"):
        letter = level[0] if works(loss, level) else "-"
        if letter == "-" and works(loss, f"{level}:per_anchor=2"):
            letter = level[0].upper()
        row += letter
    assert row == TABLE[loss]


@pytest.mark.parametrize(
    ("loss", "level", "reason"),
    [
        ("lifted-structure", "embedding", "every other one"),
        ("n-pair", "embedding", "takes the vectors of the batch"),
        ("mutual-information", "input", "takes the vectors of the batch"),
        ("soft-triple", "embedding", "several proxies of a class"),
        ("proxy-nca", "feature", "candidates of proxy-nca are proxies"),
        ("arcface", "input", "only --mixup embedding can mix"),
        ("proxy-anchor", "input:pairs=pos-neg+anchor-neg", "anchors of proxy-anchor are proxies"),
        ("nca", "input", "no gradient for these pos-neg mixes; try more per_anchor"),
        ("proxy-nca-pp", "embedding:draw=step", "draw=pair"),
        ("normalized-softmax", "embedding:draw=step", "no gradient"),
        ("fastap", "embedding:draw=step", "no gradient"),
        ("nca", "embedding:pairs=pos-neg+pos-pos", "pos-pos mixes; try other pairs"),
        ("contrastive:weight=0.5", "feature:pairs=neg", "is not valid"),
    ],
)
def test_what_is_refused_and_why(loss: str, level: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        objective(loss, level)


@pytest.mark.parametrize("per_anchor", [1, 4])
@pytest.mark.parametrize("loss", ["contrastive:margin=0.95", "contrastive:form=squared,margin=0.2"])
def test_a_loss_that_acts_near_one_only_is_not_refused(loss: str, per_anchor: int) -> None:
    objective(loss, f"embedding:pairs=neg-neg,per_anchor={per_anchor}")


def test_one_lambda_a_step_says_nothing_to_ratios() -> None:
    """sum lambda e^s / sum (1 - lambda) e^s is lambda / (1 - lambda), whatever s: hence refused."""
    term = term_of("proxy-nca-pp")
    mixture, clean, anchors, candidates = example(term, "draw=step")
    sim = clean.sim.detach().requires_grad_()
    value = term.weigh(mixing.compare_embeddings(mixture, sim, candidates.vectors), anchors)
    assert value.item() == pytest.approx(-math.log(float(mixture.lam[0, 0])))
    (gradient,) = torch.autograd.grad(value, sim)
    assert gradient.abs().max() < 1e-12


def test_with_a_miner_only_what_it_keeps_is_mixed(embedder: Embedder) -> None:
    one = objective("multi-similarity", "embedding:per_anchor=none", miner="hard")
    with torch.no_grad():
        vectors = embedder(images())
        value = in_turn(one)(batch(), embedder)["multi-similarity/mixed"]
    sim = (vectors @ vectors.T).tolist()
    side = BatchSide(vectors, LABELS)
    mined = components.load("miners", "hard")(build_pairs(side, side))
    mixture = draw(side, side, mined, mixup_of(one))
    assert mixture.first.shape == (len(LABELS), 1)
    rows: list[Row] = []
    for a, label in enumerate(LABELS.tolist()):
        others = [j for j in range(len(LABELS)) if j != a]
        positives = [j for j in others if LABELS[j] == label]
        if not positives:
            rows.append([])
            continue
        p = min(positives, key=lambda j: sim[a][j])
        n = max((j for j in others if LABELS[j] != label), key=lambda j: sim[a][j])
        share = float(mixture.lam[a, 0])
        v = functional.normalize(share * vectors[p] + (1 - share) * vectors[n], dim=0)
        rows.append([(float(vectors[a] @ v), share)])
    assert float(value) == pytest.approx(0.4 * multi_similarity(rows), rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "level"),
    [
        *(
            (x, y)
            for x in ("contrastive", "proxy-anchor")
            for y in ("embedding", "input", "feature")
        ),
        ("contrastive", "embedding:pairs=anchor-neg"),
        ("contrastive", "input:pairs=anchor-neg"),
    ],
)
def test_weights_of_images_weigh_mixed_examples(embedder: Embedder, loss: str, level: str) -> None:
    """Of an anchor as its clean pairs; towards a proxy each mix weighs as its two images do."""
    weights = torch.arange(len(LABELS)) / 4
    one = objective(loss, text(level, "per_anchor=2"))
    with torch.no_grad():
        value = in_turn(one)(batch(weights=weights), embedder)[f"{loss}/mixed"]
        mixture, made, anchors = remade(one, embedder, weights)
    of_anchor = weights[:, None]
    of_first, of_second = (
        (of_anchor, of_anchor)
        if loss == "contrastive"
        else (weights[mixture.first], weights[mixture.second])
    )
    there = made.pos + made.neg > 0
    assert loss != "contrastive" or not there[0].any()  # the weight zero
    torch.testing.assert_close(made.pos, mixture.lam * of_first * there)
    torch.testing.assert_close(made.neg, (1 - mixture.lam) * of_second * there)
    torch.testing.assert_close(
        value, 0.4 * one.terms["0"].weigh(made, anchors), rtol=1e-3, atol=1e-5
    )


def test_beside_a_memory_both_terms_stand(embedder: Embedder) -> None:
    settings = {"memory": MemorySettings(20, weight=0.5)}
    one = objective("contrastive", "embedding", **settings)
    torch.manual_seed(0)
    plain = build_objective("contrastive", classes=CLASSES, dim=DIM, **settings)
    only = objective("contrastive", "embedding")
    steps = [in_turn(each) for each in (one, plain, only)]
    with torch.no_grad():
        for _ in range(2):
            values, without, mixed = (step(batch(), embedder) for step in steps)
    assert list(values) == ["contrastive", "contrastive/memory", "contrastive/mixed"]
    assert values["contrastive/memory"] == without["contrastive/memory"]
    assert values["contrastive/mixed"] == mixed["contrastive/mixed"]


@pytest.mark.parametrize("level", ["input", "feature", "embedding"])
def test_a_batch_without_positives_has_no_mixed_examples(embedder: Embedder, level: str) -> None:
    alone = batch(torch.arange(4), images()[:4])
    for loss in ("multi-similarity", "margin"):
        values = in_turn(objective(loss, level))(alone, embedder)
        assert values[f"{loss}/mixed"].item() == 0
        sum(values.values()).backward()


def test_a_single_mixed_example_in_training_mode() -> None:
    """Batch normalisation over one value is an error: it has company then."""
    model = tiny_model(image_size=32, resize=32, dim=DIM).train()  # the last maps are 1 x 1
    pictures = images()[:3, :, :32, :32]
    few = batch(torch.tensor([0, 0, 1]), pictures, torch.tensor([1.0, 0, 0]))
    for level in ("input", "feature:stage=layer2", "feature"):
        values = in_turn(objective("contrastive", level))(few, model)
        assert values["contrastive/mixed"].item() != 0


def test_the_cost_is_said_once(embedder: Embedder, caplog) -> None:
    with caplog.at_level("INFO"):
        for level in ("feature:per_anchor=2", "embedding"):
            step = in_turn(objective("contrastive", level))
            for _ in range(2):
                step(batch(), embedder)
    said = [line for line in caplog.messages if line.startswith("mixup: ")]
    assert len(said) == 2
    maps = backbones.feature_maps(embedder.backbone, images().float()).shape
    assert "18 passes from stage last on in the first step" in said[0]
    assert f"of {maps[1]} x {maps[2]} x {maps[3]}" in said[0]


def test_ranks_share_the_work(embedder: Embedder, monkeypatch) -> None:
    """Seven examples among three ranks: equal parts, filled up, put together in order."""
    rows = images()
    inputs = mixing.MixInputs(rows, "input", rows[:1], embedder)
    first, second = torch.arange(7), torch.arange(7).flip(0) + 2
    share = torch.linspace(0.1, 0.9, 7)
    with torch.no_grad():
        whole = inputs.embed(first, second, share)
        parts = []
        monkeypatch.setattr(mixing.distributed, "world", lambda: 3)
        monkeypatch.setattr(mixing.distributed, "gather", lambda rows: rows)
        for rank in range(3):
            monkeypatch.setattr(mixing.distributed, "rank", lambda: rank)  # noqa: B023
            parts.append(inputs.embed(first, second, share))
    assert [len(part) for part in parts] == [3, 3, 3]
    torch.testing.assert_close(torch.cat(parts)[:7], whole)
