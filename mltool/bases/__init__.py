"""One file = one basis: what labelled classes teach about pairs of images with pseudo-labels.

A basis is an `nn.Module` in CamelCase that learns beside the model and is of no use after it. It
asks for `classes` (labelled ones), `dim` (of an embedding) and `steps` (of the run), and has

* `weight`: what its own terms count in the objective;
* `warmup`: in the first steps of the run the basis learns and the model stands still;
* `classify(vectors [L, D], labels [L]) -> [L]`: a loss of each labelled image;
* `separate(vectors [U, D], labels [U], rows [U]) -> scalar`: a loss of the images with
  pseudo-labels, which also renews the statistics of the basis (call it once a step, with the rows
  of all ranks); `rows` tell images apart, since a batch repeats those of a small pseudo-class;
* `select(pairs [U, U], vectors [U, D]) -> Pairs`: the pairs of these images that count, by the
  present statistics; the columns are the rows. A pair of one image comes without weight.

Statistics are buffers, so that they are saved and resumed.
"""
