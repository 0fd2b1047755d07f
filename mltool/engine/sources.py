"""The source of batches that a model takes: images, or for a head cached vectors."""

from mltool.engine.data import Images, plain_view
from mltool.engine.vectors import Vectors
from mltool.files.manifest import Manifest
from mltool.models.spec import ModelSpec


def open_test(
    manifest: Manifest, spec: ModelSpec, *, seed: int = 0, cache: bool = False
) -> Images | Vectors:
    """Open a list as a model sees it in a test; `cache` keeps decoded images in memory."""
    if spec.takes_vectors:
        return Vectors(manifest)
    return Images(manifest, spec, plain_view(spec), seed=seed, cache=cache)
