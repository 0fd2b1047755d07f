"""One file = one random image transform of training, `f(size, *, ...) -> transform`."""
