"""Decode image files of unknown origin to pixels.

Pillow alone would turn 16-bit greys to two levels, leave photos lying on their side, run
Ghostscript for a PostScript file and only warn of a decompression bomb.
"""

import functools
import io
import os
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from mltool.errors import InputError, escape
from mltool.files.digits import pixels_and_labels
from mltool.files.locations import describe
from mltool.files.reading import open_input

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 2**30 // 6  # about 179 million: half a gigabyte as RGB
MAX_BYTES = 2**31  # of the file; no image below the pixel cap needs more
OVERSAMPLING = 2  # a JPEG is decoded at no less than this times the pixels that are needed

Image.MAX_IMAGE_PIXELS = None  # Pillow's bomb check only warns below twice its limit; ours follows
# Pillow warns of damaged metadata without naming the file; the pixels are not concerned
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

UPRIGHT = {  # value of the EXIF orientation -> what turns the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112


def load(location: str, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Load the image at a location of a manifest: uint8 [H, W, 3].

    With `at_least` a JPEG may come smaller, its shorter side no less than twice that many pixels.
    Raises InputError naming the file.
    """
    source, _, row = location.partition("\0")
    if row and source == "digits":
        return np.repeat(_read_digit(int(row))[:, :, None], 3, axis=2)
    data = read_bytes(location)
    return decode(data, at_least=at_least, max_pixels=max_pixels, name=describe(location))


def read_bytes(location: str) -> bytes:
    """Read the encoded image at a location; a digit is encoded as PNG. Raises InputError."""
    source, _, row = location.partition("\0")
    if row and source == "digits":
        encoded = io.BytesIO()
        Image.fromarray(_read_digit(int(row))).save(encoded, "PNG")
        return encoded.getvalue()
    if row:
        return _open_pack(source)(int(row))
    with open_input(source) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise InputError(f"{escape(source)} has more than {MAX_BYTES:,} bytes; shrink it")
        return file.read()


def decode(
    data: bytes,
    *,
    at_least: int | None = None,
    max_pixels: int = MAX_PIXELS,
    name: str = "the image",
) -> np.ndarray:
    """Decode bytes to upright RGB pixels: uint8 [H, W, 3], a new array.

    Transparent pixels are laid on white, 16-bit and floating-point greys are scaled to 8 bits, and
    an animation gives its first frame. Raises InputError for bytes that cannot be decoded whole.
    """
    if not data:
        raise InputError(f"cannot decode {name}: it is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"cannot decode {name}: {width} x {height} pixels are more than the "
                    f"{max_pixels:,} allowed; shrink it first"
                )
            if at_least is not None:
                side = OVERSAMPLING * at_least
                image.draft(None, (side, side))  # square: turning the image changes nothing
            image.load()
            turn = _read_turn(image)
            rgb = _to_rgb(image)
            return np.array(rgb if turn is None else rgb.transpose(turn))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise InputError(f"cannot decode {name}: it is not an image ({kinds})") from error
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        reason = escape(str(error)) or type(error).__name__
        raise InputError(f"cannot decode {name}: {reason}; replace the file") from error


def _read_digit(row: int) -> np.ndarray:
    pixels, _ = pixels_and_labels()
    if not 0 <= row < len(pixels):
        raise InputError(f"there is no digit {row}, only 0 to {len(pixels) - 1}")
    return pixels[row]


@functools.lru_cache(maxsize=16)
def _open_pack(path: str) -> Callable[[int], bytes]:
    from mltool.files.pack import open_bytes  # h5py is for packs only

    return open_bytes(path)


def _read_turn(image: Image.Image) -> Image.Transpose | None:
    """Return the transpose that turns a loaded image upright, None for an upright one.

    Before loading the answer would be wrong: loading a TIFF turns it and drops the tag.
    """
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata does not make a damaged image
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_eight_bits(image))
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """Scale a grey image of more than 8 bits to uint8 [H, W].

    16-bit values are divided by 257. Wider integers and floats have no declared range: the scale is
    the first of 0..1 (floats only), 0..255, 0..65535 that contains all values, else min..max.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    natural = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    if low >= 0 and high <= natural[-1]:
        low, high = 0.0, min(top for top in natural if high <= top)
    return np.rint((values - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)
