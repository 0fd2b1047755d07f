"""Crop boxes: which columns make them, and what they leave of an image."""

import numpy as np
import pytest
from PIL import Image

from mltool.errors import InputError
from mltool.files import crop_boxes, pack_writer
from mltool.files.lists.image_lists import read

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def columns(*rows):
    return dict(zip(crop_boxes.COLUMNS, np.array(rows, np.float64).T, strict=True))


def test_a_list_without_boxes():
    assert crop_boxes.from_columns({}) is None
    assert crop_boxes.from_columns(columns([np.nan] * 4, [np.nan] * 4)) is None


def test_images_without_a_box_among_others():
    found = crop_boxes.from_columns(columns([1, 2, 3, 4], [np.nan] * 4))
    assert found[0].tolist() == [1, 2, 3, 4]
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("row", [[1, 2, 1, 4], [3, 2, 1, 4], [1, 2, np.nan, 4], [1, 2, np.inf, 4]])
def test_boxes_that_are_none(row):
    with pytest.raises(InputError, match="1 crop boxes have a side missing or no area"):
        crop_boxes.from_columns(columns([1, 2, 3, 4], row))


def test_columns_that_make_no_box():
    with pytest.raises(InputError, match="the list lacks y_2"):
        crop_boxes.from_columns({key: np.zeros(3) for key in ("x_1", "y_1", "x_2")})
    with pytest.raises(InputError, match="no numbers"):
        crop_boxes.from_columns({key: np.array([b"1"]) for key in crop_boxes.COLUMNS})


@pytest.mark.parametrize("box", [[0, 0, 30, 20], [3, 4, 5, 6], [2.4, 3.6, 28.7, 19.2]])
def test_a_box_inside_is_pillows_crop(box):
    expected = np.asarray(Image.fromarray(PIXELS).crop(box))
    assert np.array_equal(crop_boxes.crop(PIXELS, np.array(box)), expected)


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ([-5, -7, 10, 10], [0, 0, 10, 10]),
        ([25, 3, 99, 1e300], [25, 3, 30, 20]),
        ([-9, -9, 99, 99], [0, 0, 30, 20]),
    ],
)
def test_a_box_beyond_the_border_ends_there(box, inside):
    left, top, right, bottom = inside
    found = crop_boxes.crop(PIXELS, np.array(box))
    assert np.array_equal(found, PIXELS[top:bottom, left:right])


@pytest.mark.parametrize("box", [[30, 0, 40, 5], [-9, 0, 0, 5], [0, 21, 5, 30], [3.1, 0, 3.2, 5]])
def test_a_box_without_a_pixel_is_refused(box):
    with pytest.raises(InputError, match=r"holds no pixel of x\.jpg, which is 30 x 20"):
        crop_boxes.crop(PIXELS, np.array(box), name="x.jpg")


def test_a_pack_does_not_shrink_under_boxes(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,x_1,y_1,x_2,y_2\na.png,1,2,11,12\n")
    listed = read(str(tmp_path / "list.csv"))
    with pytest.raises(InputError, match="pack without --size"):
        pack_writer.write(tmp_path / "p.h5", listed, size=10)
    pack_writer.write(tmp_path / "p.h5", listed)
    packed = read(str(tmp_path / "p.h5"))
    assert crop_boxes.from_columns(packed.columns).tolist() == [[1, 2, 11, 12]]
