"""What a model is, in words: enough to rebuild it and the preprocessing of its images.

A model takes images, or is a head: then its backbone is `vectors`, and its input a vector that
another model has stored. A field may declare a neutral value, with which what it describes is
absent. It is then left out of a checkpoint, so that a new field changes no file of before, and
readers of before refuse it only where it says something.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field

from mltool.errors import InputError, UsageError
from mltool.files.embeddings import METRICS
from mltool.options.model import VECTORS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = ("bilinear", "bicubic")
# of a field's metadata: the value with which its feature is absent, and whether every model of
# images has the feature, so that only a head leaves it out
NEUTRAL, OF_IMAGES = "neutral", "of_images"
LARGEST = 2**20  # of any length or side: more is no model but an attack on the memory


@dataclass(frozen=True)
class ModelSpec:
    """Everything that the checkpoint's tensors do not say themselves.

    `backbone` is a timm name with arguments (`resnet50:drop_path_rate=0.1`), `pixels` or `vectors`.
    `channels` is the depth of its last feature map, `dim` the length of an embedding. Test images
    are resized to `resize` pixels on the shorter side and the centre square of `crop` is taken;
    with `keep_aspect` they stay whole, and their longer side has at most `crop` pixels.
    `teacher_space` names the model whose embeddings a student's can be compared with. `parts` says
    how learners divide the vector: a component with its settings, "" = they do not.

    A head has no pixels and no pooling, see `describe_head`; `channels` is the length of its input.
    `input_space` names the model whose vectors it takes, "" = unknown, and `input_metric` is the
    metric by which these are compared.
    """

    backbone: str
    channels: int
    pooling: str = field(metadata={NEUTRAL: "", OF_IMAGES: True})
    projection: str
    dim: int
    resize: int = field(metadata={NEUTRAL: 0, OF_IMAGES: True})
    crop: int = field(metadata={NEUTRAL: 0, OF_IMAGES: True})
    normalize: bool = True
    metric: str = "cosine"
    teacher_space: str = field(default="", metadata={NEUTRAL: ""})
    interpolation: str = field(default="bilinear", metadata={NEUTRAL: "", OF_IMAGES: True})
    keep_aspect: bool = field(default=False, metadata={NEUTRAL: False})
    mean: tuple[float, ...] = field(default=IMAGENET_MEAN, metadata={NEUTRAL: (), OF_IMAGES: True})
    std: tuple[float, ...] = field(default=IMAGENET_STD, metadata={NEUTRAL: (), OF_IMAGES: True})
    input_space: str = field(default="", metadata={NEUTRAL: ""})
    input_metric: str = field(default="", metadata={NEUTRAL: ""})
    parts: str = field(default="", metadata={NEUTRAL: ""})

    @classmethod
    def describe_head(
        cls, length: int, *, projection: str, dim: int, space: str, metric: str, parts: str = ""
    ) -> "ModelSpec":
        """Describe a head on vectors of one length; `space` and `metric` are those of its input."""
        return cls(
            backbone=VECTORS,
            channels=length,
            pooling="",
            projection=projection,
            dim=dim,
            resize=0,
            crop=0,
            interpolation="",
            mean=(),
            std=(),
            input_space=space,
            input_metric=metric,
            parts=parts,
        )

    def __post_init__(self) -> None:
        if self.resize < self.crop:
            raise UsageError(
                f"a shorter side of {self.resize} pixels is smaller than the crop of {self.crop}; "
                f"raise --resize or lower --image-size"
            )

    @property
    def takes_vectors(self) -> bool:
        """Whether this is a head, whose inputs are vectors and not images."""
        return self.backbone == VECTORS

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: [D], or [3, H, W]."""
        return (self.channels,) if self.takes_vectors else (3, self.crop, self.crop)

    def change_size(self, crop: int | None, resize: int | None) -> "ModelSpec":
        """Return the spec for another image size; the shorter side follows unless it is given."""
        if crop is None and resize is None:
            return self
        if self.takes_vectors:
            raise UsageError("--image-size and --resize are for images; this model takes vectors")
        if self.keep_aspect and resize is not None:
            raise UsageError("--resize is for centre crops; this model takes whole images")
        scaled = round(self.resize * (crop or self.crop) / self.crop)
        return dataclasses.replace(self, crop=crop or self.crop, resize=resize or scaled)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types, for the checkpoint, without the fields that say nothing."""
        values = {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if NEUTRAL not in each.metadata or getattr(self, each.name) != each.metadata[NEUTRAL]
        }
        return json.loads(json.dumps(values))

    @property
    def preprocess(self) -> str:
        """JSON of what happens to an image before the network, for the embeddings file; or ""."""
        if self.takes_vectors:
            return ""
        keys = ["resize", "crop", "interpolation", "mean", "std"]
        keys += ["keep_aspect"] if self.keep_aspect else []
        return json.dumps({key: self.to_dict()[key] for key in keys}, sort_keys=True)


def from_dict(values: object, path: str) -> ModelSpec:
    """Return the spec that `path` holds. Raises InputError for anything else.

    What is missing is neutral, whatever the default is by now. A field that is not known was
    written because it does something.
    """
    fields = {each.name: each for each in dataclasses.fields(ModelSpec)}
    is_head = isinstance(values, dict) and values.get("backbone") == VECTORS
    neutral = {
        name: each.metadata[NEUTRAL]
        for name, each in fields.items()
        if NEUTRAL in each.metadata and (is_head or OF_IMAGES not in each.metadata)
    }
    required = {n for n, each in fields.items() if each.default is dataclasses.MISSING}
    if not isinstance(values, dict) or not required - neutral.keys() <= set(values):
        raise InputError(f"{path}: its model description is incomplete; train it again")
    if unknown := sorted(set(values) - set(fields)):
        raise InputError(
            f"{path}: its model has {', '.join(map(repr, unknown))}, which this mltool does not "
            "know; update mltool"
        )
    try:
        typed = {key: _convert(fields[key].type, value) for key, value in values.items()}
        spec = ModelSpec(**neutral | typed)
        _check(spec)
    except (TypeError, ValueError, UsageError):
        raise InputError(f"{path}: its model description is damaged; train it again") from None
    return spec


def _check(spec: ModelSpec) -> None:
    """Raise ValueError for what no model can have."""
    if not all(0 < n <= LARGEST for n in (spec.channels, spec.dim)) or spec.metric not in METRICS:
        raise ValueError("a length or metric")
    if spec.takes_vectors:
        _check_head(spec)
        return
    if not all(0 < n <= LARGEST for n in (spec.resize, spec.crop)):
        raise ValueError("a size")
    if spec.interpolation not in INTERPOLATIONS or spec.input_space or spec.input_metric:
        raise ValueError("a name")
    if not all(map(math.isfinite, (*spec.mean, *spec.std))) or min(spec.std) <= 0:
        raise ValueError("mean or standard deviation")


def _check_head(spec: ModelSpec) -> None:
    """Raise ValueError for a head that says anything of images."""
    plain = ModelSpec.describe_head(
        spec.channels,
        projection=spec.projection,
        dim=spec.dim,
        space=spec.input_space,
        metric=spec.input_metric,
    )
    learned = {key: getattr(spec, key) for key in ("normalize", "metric", "teacher_space", "parts")}
    if spec != dataclasses.replace(plain, **learned) or spec.input_metric not in METRICS:
        raise ValueError("a head")


def _convert(kind: object, value: object):  # type: ignore[no-untyped-def]
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
