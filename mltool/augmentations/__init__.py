"""One file = one random image transform of training, `f(*, size, ...) -> transform`.

A transform is `t(image, generator)`: uint8 [3, H, W] -> uint8 [3, H', W']. All randomness comes
from the generator, so the same image is cut the same way on every rank and in every worker.
"""
