import io
import os
import socket
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from mltool.errors import InputError
from mltool.files.digits import pixels_and_labels
from mltool.files.images import MAX_PIXELS, decode, load, read_bytes

ORIENTATION = 0x0112


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def photo(height=60, width=90):
    """A smooth picture that survives JPEG, and says which way is up."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * rows / height, 255 * columns / width
    return np.stack([red, green, np.full_like(red, 40)], axis=2).astype(np.uint8)


def bomb(width, height):
    """A PNG of one colour and one bit."""
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 1)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    return data


def corners(pixels):
    """Mean colours of the four corners."""
    size = max(2, min(pixels.shape[:2]) // 8)
    parts = [pixels[:size, :size], pixels[:size, -size:], pixels[-size:, :size]]
    return np.array([part.reshape(-1, 3).mean(0) for part in [*parts, pixels[-size:, -size:]]])


def turned(pixels, orientation):
    """What a camera stores for an upright picture: the inverse of the EXIF definition."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (0,), 7: (0, 1), 8: (1,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(pixels, flips))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(form, orientation):
    upright = photo()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(Image.fromarray(turned(upright, orientation)), form, exif=exif)
    pixels = decode(data)
    assert pixels.shape == upright.shape
    np.testing.assert_allclose(corners(pixels), corners(upright), atol=8)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("at_least", [1, 20, 25, 26, 50, 51, 300])
def test_jpegs_are_shrunk_to_no_less_than_twice_what_is_needed(orientation, at_least):
    upright = photo(201, 402)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(Image.fromarray(turned(upright, orientation)), "JPEG", exif=exif)
    pixels = decode(data, at_least=at_least)
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or 201 // s >= 2 * at_least)
    assert pixels.shape == (-(-201 // scale), -(-402 // scale), 3)
    assert min(pixels.shape[:2]) >= min(201, 2 * at_least)
    np.testing.assert_allclose(corners(pixels), corners(upright), atol=16)


def test_only_jpegs_are_shrunk():
    assert decode(encoded(Image.fromarray(photo())), at_least=1).shape == (60, 90, 3)


def test_the_pixels_are_a_new_writable_array():
    pixels = decode(encoded(Image.fromarray(photo())))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, photo())


def test_grey_images_have_three_equal_channels():
    grey = photo()[:, :, 0]
    pixels = decode(encoded(Image.fromarray(grey)))
    np.testing.assert_array_equal(pixels, np.repeat(grey[:, :, None], 3, axis=2))


def test_one_bit_images_are_black_and_white():
    bits = photo()[:, :, 0] > 100
    pixels = decode(encoded(Image.fromarray(bits)))
    np.testing.assert_array_equal(pixels[:, :, 1], np.where(bits, 255, 0))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_greys_are_divided_by_257(form):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode(encoded(Image.fromarray(values), form))
    np.testing.assert_array_equal(pixels[:, :, 0], np.rint(values / 257).astype(np.uint8))
    assert len(np.unique(pixels)) == 256


def test_dark_sixteen_bit_greys_stay_dark():
    values = np.full((4, 4), 200, np.uint16)
    assert decode(encoded(Image.fromarray(values))).max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 5e9, 1e10], [0, 128, 255]),
        ([np.nan, np.inf, 1.0], [0, 0, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_floating_point_greys_are_scaled_by_their_range(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    assert decode(encoded(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 128, 255], [0, 128, 255]), ([0, 257, 65535], [0, 1, 255]), ([-5, 0, 5], [0, 128, 255])],
)
def test_wide_integers_are_scaled_by_their_range(values, expected):
    image = Image.fromarray(np.array([values], np.int32))
    assert decode(encoded(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("RGBA", (200, 100, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
    ],
)
def test_transparency_is_laid_on_white(mode, pixel, expected):
    pixels = decode(encoded(Image.new(mode, (3, 2), pixel)))
    assert pixels.shape == (2, 3, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_palettes_and_their_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    for transparency in (0, b"\x00\xff"):
        data = encoded(image, transparency=transparency)
        assert decode(data).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_a_transparent_colour_is_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    data = encoded(image, transparency=(1, 2, 3))
    assert decode(data).tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_cmyk():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(decode(data).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(data)[0, 0], (255, 0, 0))


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (1, 20000)])
def test_extreme_shapes(size):
    data = encoded(Image.new("RGB", size, "red"), "JPEG")
    assert decode(data, at_least=224).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("size", [(13_400, 13_400), (30_000, 30_000), (200_000, 1_000)])
def test_decompression_bombs_are_refused_before_decoding(size):
    data = bomb(*size)
    assert len(data) < 600_000
    assert Image.open(io.BytesIO(data)).size == size
    with pytest.raises(InputError, match=f"x.png: {size[0]} x {size[1]} pixels are more"):
        decode(data, name="x.png")


def test_the_pixel_cap_can_be_chosen():
    data = encoded(Image.new("RGB", (20, 10)))
    assert decode(data, max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(InputError, match="more than the 199 allowed"):
        decode(data, max_pixels=199)
    assert 170_000_000 < MAX_PIXELS < 180_000_000


def test_images_between_pillows_warning_and_our_cap_are_read():
    data = encoded(Image.new("L", (10_000, 9_500)), "JPEG")
    assert decode(data, at_least=100).shape == (1188, 1250, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_images_are_never_returned(form):
    whole = encoded(Image.fromarray(photo()), form)
    step = max(1, len(whole) // 40)
    end = len(whole) - 20  # what ends a PNG is not about its pixels
    for length in [0, 1, 2, 10, *range(20, end, step)]:
        with pytest.raises(InputError, match="cannot decode cut"):
            decode(whole[:length], name="cut")


def test_a_jpeg_without_its_last_bytes_is_truncated():
    whole = encoded(Image.fromarray(photo()), "JPEG")
    with pytest.raises(InputError, match="truncated"):
        decode(whole[:-2])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"<html><body>404 not found</body></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"GIF89a\xff\xff\xff\xff",
        b"II*\0" + struct.pack("<I", 0xFFFFFFF0),
        np.random.default_rng(1).bytes(500),
    ],
)
def test_what_is_no_image(data):
    with pytest.raises(InputError, match=r"cannot decode x\.jpg: "):
        decode(data, name="x.jpg")


@pytest.mark.parametrize("form", ["PCX", "TGA", "ICO", "EPS", "PDF"])
def test_other_formats_are_refused(form):
    """Pillow knows many more, some through outside programs: each is one more way in."""
    with pytest.raises(InputError, match="it is not an image"):
        decode(encoded(Image.fromarray(photo()), form))


def test_damaged_bytes_never_raise_anything_else():
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"):
        whole = np.frombuffer(encoded(Image.fromarray(photo(30, 30)), form), np.uint8)
        for _ in range(60):
            data = whole.copy()
            places = rng.integers(len(data), size=4)
            data[places] = rng.integers(256, size=4)
            try:
                pixels = decode(data.tobytes(), max_pixels=10**6)
            except InputError:
                continue
            assert pixels.ndim == 3


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_metadata_do_not_matter():
    whole = encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(whole).shape == (60, 90, 3)
    assert decode(encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0rubbish")).shape


def test_load_names_the_file(tmp_path):
    path = tmp_path / "a\x1b[31m.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert str(tmp_path) in str(caught.value)
    assert "a\\x1b[31m.jpg" in str(caught.value)


def test_load_and_read_files(tmp_path):
    data = encoded(Image.fromarray(photo()))
    path = os.fsencode(tmp_path) + b"/\xff -x.png"
    with open(path, "wb") as file:
        file.write(data)
    os.symlink(path, tmp_path / "link.png")
    for location in (os.fsdecode(path), str(tmp_path / "link.png")):
        np.testing.assert_array_equal(load(location), photo())
        assert read_bytes(location) == data


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket must be short
        server.bind("socket.jpg")
        os.chdir(here)
        for name in ("pipe.jpg", "folder.jpg", "loop.jpg", "socket.jpg", "missing.jpg"):
            with pytest.raises(InputError, match=name):
                load(str(tmp_path / name))


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    official = datasets.load_digits()
    pixels, labels = pixels_and_labels()
    np.testing.assert_array_equal(labels, official.target)
    np.testing.assert_array_equal(pixels, np.rint(official.images * 255 / 16))
    assert load("digits\0" + "7").shape == (8, 8, 3)
    np.testing.assert_array_equal(load("digits\0" + "7")[:, :, 1], pixels[7])
    np.testing.assert_array_equal(decode(read_bytes("digits\0" + "7")), load("digits\0" + "7"))
    with pytest.raises(InputError, match="no digit 1797"):
        load("digits\0" + "1797")


def test_huge_files_are_not_read(tmp_path):
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"sparse\.jpg has more than"):
        load(str(tmp_path / "sparse.jpg"))


def test_reading_takes_no_more_memory_than_the_file(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x" * 100_000)
    tracemalloc.start()
    read_bytes(str(tmp_path / "x.png"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000
