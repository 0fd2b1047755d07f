"""A list with crop boxes is seen through them, by whoever loads its images."""

import numpy as np
import pytest
import torch
from PIL import Image

from mltool import components
from mltool.engine.data import Images
from mltool.errors import InputError
from mltool.files.lists.image_lists import read
from mltool.models.spec import ModelSpec
from mltool.transforms import center_crop, resize_shorter, to_tensor

SPEC = ModelSpec("pixels", 3, "flatten", "none", 3 * 24 * 24, resize=28, crop=24)


def images(path, **settings):
    augmentation = components.load("augmentations", "center", size=SPEC.crop)
    return Images(read(str(path)), SPEC, augmentation, seed=0, **settings)


@pytest.fixture
def listed(tmp_path):
    """A large JPEG, which its decoder would shrink, with a box, beyond the border and without."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((800, 600), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "a.jpg", quality=95)
    rows = ["a.jpg,one,100,50,300.4,190", "a.jpg,two,700,-10,900,300", "a.jpg,three,,,,"]
    path = tmp_path / "list.csv"
    path.write_text("path,name,x_1,y_1,x_2,y_2\n" + "\n".join(rows) + "\n")
    return path, np.asarray(Image.open(tmp_path / "a.jpg"))


@pytest.mark.parametrize("cache", [False, True])
def test_the_box_is_cut_from_the_whole_image_and_then_resized(listed, cache):
    path, pixels = listed
    seen = images(path, cache=cache)
    for row, part in ((0, pixels[50:190, 100:300]), (1, pixels[:300, 700:])):
        expected = resize_shorter(to_tensor(part.copy()), 28, interpolation=SPEC.interpolation)
        for _ in range(2):  # decoded, then kept
            assert torch.equal(seen.prepare(row), expected)
        found = seen.__getitems__([(row, 0)]).inputs[0]
        assert torch.equal(found, center_crop(expected, 24))


def test_an_empty_box_leaves_the_image_as_it_was(listed, tmp_path):
    path, _ = listed
    (tmp_path / "plain.csv").write_text("path\na.jpg\n")
    assert torch.equal(images(path).prepare(2), images(tmp_path / "plain.csv").prepare(0))


def test_a_box_outside_is_a_bad_image(listed, tmp_path):
    (tmp_path / "bad.csv").write_text("path,x_1,y_1,x_2,y_2\na.jpg,900,0,950,10\n")
    with pytest.raises(InputError, match=r"no pixel of .*a\.jpg, which is 800 x 600"):
        images(tmp_path / "bad.csv").prepare(0)
    batch = images(tmp_path / "bad.csv", skip_bad=True).__getitems__([(0, 0)])
    assert len(batch.failures) == 1
