"""A device that this machine lacks is refused."""

import pytest

from mltool.errors import UsageError
from mltool.exact import products


def test_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="no device 'tpu'"):
        products.list_precisions("tpu")
