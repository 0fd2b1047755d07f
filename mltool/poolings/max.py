"""Global maximum pooling (MAC; Tolias, Sicre, Jegou, ICLR 2016)."""

from torch import Tensor


def max(maps: Tensor) -> Tensor:  # noqa: A001 - the component's name is its file's
    """Take the maximum of each channel.

    v_c = max over x

    Args: maps [B, C, H, W]. Returns [B, C].
    """
    return maps.amax(dim=(2, 3))
