"""The error bound holds for every product, and is narrow enough to decide something."""

import numpy as np
import pytest

from mltool.exact import products
from mltool.exact.vector_set import make_vector_sets, score_table

METRICS = ("cosine", "dot", "euclidean")
PRECISIONS = ("float64", "float32", "bfloat16")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_error_bound_holds(metric, precision):
    rng = np.random.default_rng(5)
    for scale in (1e-20, 1.0, 1e15):
        tables = [(scale * rng.standard_normal((60, 300))).astype(np.float32) for _ in "ab"]
        tables[1][:20] = tables[0][:20]
        names = np.array([f"{n:02d}" for n in range(60)], "S")
        queries, gallery = make_vector_sets((tables[0], names), (tables[1], names), metric=metric)
        arithmetic = products.make_products(precision, "cpu")
        left, right = (arithmetic.make_operand(side, slice(0, 60)) for side in (queries, gallery))
        tile = arithmetic.multiply(left, right, gallery)
        bound, scores = tile.bound, tile.score_rows(slice(0, 60)).copy()
        np.testing.assert_allclose(tile.score_columns(slice(0, 60)).T, scores, atol=1e-6)
        exact = score_table(queries, np.arange(60), gallery, np.arange(60))
        error = np.abs(scores - exact)
        assert (error <= bound.max_error(exact)).all()
        assert error.max() > 0
        # and is not so wide that it decides nothing
        assert (
            bound.max_error(exact).max()
            < {"float64": 1e-9, "float32": 1e-3, "bfloat16": 0.1}[precision]
        )
