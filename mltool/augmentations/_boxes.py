"""The boxes of random crops, drawn as torchvision draws them."""

import math

# As torchvision: this many draws of a shape, then the largest centre crop of a legal shape.
_TRIES = 10
DRAWS = 2 * _TRIES + 2  # numbers that a box takes


def draw_box(
    rows: int, columns: int, *, area: tuple[float, float], ratio: float, draws: list[float]
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop of an image of `rows` x `columns` pixels.

    `area` bounds the share of the image, `ratio` the ratio of the sides. `draws` are `DRAWS`
    numbers from [0, 1): of areas, of ratios, and of the two positions.
    """
    least, largest = area
    for area_draw, ratio_draw in zip(draws[:_TRIES], draws[_TRIES : 2 * _TRIES], strict=True):
        pixels = rows * columns * (least + (largest - least) * area_draw)
        aspect = math.exp((2 * ratio_draw - 1) * math.log(ratio))
        width, height = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < width <= columns and 0 < height <= rows:
            top = int(draws[-2] * (rows - height + 1))
            left = int(draws[-1] * (columns - width + 1))
            return top, left, height, width
    height = min(rows, round(columns * ratio))
    width = min(columns, round(rows * ratio))
    return (rows - height) // 2, (columns - width) // 2, height, width
