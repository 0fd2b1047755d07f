"""One file = one pooling: `[B, C, H, W] -> [B, C]`."""
