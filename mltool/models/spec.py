"""What a model is, in words: enough to rebuild it and the preprocessing of its images."""

import dataclasses
import json
import math
from dataclasses import dataclass

from mltool.errors import InputError, UsageError
from mltool.files.embeddings import METRICS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = ("bilinear", "bicubic")
LARGEST = 2**20  # of any length or side: more is no model but an attack on the memory


@dataclass(frozen=True)
class ModelSpec:
    """Everything that the checkpoint's tensors do not say themselves.

    `backbone` is a timm name with arguments (`resnet50:drop_path_rate=0.1`) or `pixels`.
    `channels` is the depth of its last feature map, `dim` the length of an embedding. Test images
    are resized to `resize` pixels on the shorter side and the centre square of `crop` is taken;
    with `keep_aspect` they stay whole, and their longer side has at most `crop` pixels.
    `teacher_space` names the model whose embeddings a student's can be compared with.
    """

    backbone: str
    channels: int
    pooling: str
    projection: str
    dim: int
    resize: int
    crop: int
    normalize: bool = True
    metric: str = "cosine"
    teacher_space: str = ""
    interpolation: str = "bilinear"
    keep_aspect: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.resize < self.crop:
            raise UsageError(
                f"a shorter side of {self.resize} pixels is smaller than the crop of {self.crop}; "
                f"raise --resize or lower --image-size"
            )

    def resized(self, crop: int | None, resize: int | None) -> "ModelSpec":
        """The spec for another image size; the shorter side follows unless it is given."""
        if crop is None and resize is None:
            return self
        if self.keep_aspect and resize is not None:
            raise UsageError("--resize is for centre crops; this model takes whole images")
        scaled = round(self.resize * (crop or self.crop) / self.crop)
        return dataclasses.replace(self, crop=crop or self.crop, resize=resize or scaled)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types, for the checkpoint."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def preprocess(self) -> str:
        """JSON of what happens to an image before the network, for the embeddings file."""
        keys = ["resize", "crop", "interpolation", "mean", "std"]
        keys += ["keep_aspect"] if self.keep_aspect else []
        return json.dumps({key: self.to_dict()[key] for key in keys}, sort_keys=True)


def from_dict(values: object, path: str) -> ModelSpec:
    """The spec that `path` holds. Raises InputError for anything else."""
    known = {f.name: f for f in dataclasses.fields(ModelSpec)}
    required = {n for n, f in known.items() if f.default is dataclasses.MISSING}
    if not isinstance(values, dict) or not required <= set(values) <= set(known):
        raise InputError(f"{path}: its model description is incomplete or from a newer mltool")
    try:
        spec = ModelSpec(**{key: _typed(known[key].type, value) for key, value in values.items()})
        _check(spec)
    except (TypeError, ValueError, UsageError):
        raise InputError(f"{path}: its model description is damaged; train it again") from None
    return spec


def _check(spec: ModelSpec) -> None:
    """Raise ValueError for what no model can have."""
    if not all(0 < n <= LARGEST for n in (spec.channels, spec.dim, spec.resize, spec.crop)):
        raise ValueError("a length or size")
    if spec.interpolation not in INTERPOLATIONS or spec.metric not in METRICS:
        raise ValueError("a name")
    if not all(map(math.isfinite, (*spec.mean, *spec.std))) or min(spec.std) <= 0:
        raise ValueError("mean or standard deviation")


def _typed(kind: object, value: object):  # type: ignore[no-untyped-def]
    if kind is bool:
        if not isinstance(value, bool):
            raise TypeError
        return value
    if kind is int or kind is str:
        if type(value) is not kind:
            raise TypeError
        return value
    if not isinstance(value, list) or len(value) != 3:
        raise TypeError
    return tuple(float(item) for item in value)
