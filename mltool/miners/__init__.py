"""One file = one miner: `f(pairs, *, settings) -> Pairs` with fewer weights, the same similarities.

A miner acts on each row by itself, combines with any pair loss, and lets no gradient through. A
miner that draws at random asks for `generator`, a CPU `torch.Generator` that the caller seeds by
seed and step, so that all ranks draw the same. A miner that needs the length of the vectors asks
for `dim`. `SQUARE = True`: the columns have to be the rows (default False).
"""
