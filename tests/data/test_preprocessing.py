"""What a preprocessing can be, and what it does to pixels."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.errors import UsageError
from jaxood.preprocessing import Preprocessing

VALUES = {"resize": 256, "crop": 224, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def test_normalising_by_hand():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3), dtype=np.uint8)
    expected = (images / 255 - np.array(VALUES["mean"])) / np.array(VALUES["std"])
    found = Preprocessing(**VALUES).normalise(jnp.asarray(images))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_json_and_back():
    chosen = Preprocessing(**VALUES, interpolation="bicubic")
    assert Preprocessing.from_dict(json.loads(json.dumps(chosen.as_dict()))) == chosen


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"crop": 224.5}, "crop 224.5, wanted a whole number"),
        ({"resize": "256"}, "resize '256', wanted a whole number"),
        ({"crop": True}, "crop True, wanted a whole number"),
        ({"crop": 0}, "crop 0, wanted 1 to resize, 256"),
        ({"crop": 257}, "crop 257, wanted 1 to resize, 256"),
        ({"mean": (0.5,)}, r"mean \(0.5,\), wanted three finite numbers"),
        ({"mean": (0.5, math.nan, 0.5)}, "mean .*nan.*, wanted three finite numbers"),
        ({"mean": ("0", "0", "0")}, "mean .*, wanted three finite numbers"),
        ({"std": (0.1, math.inf, 0.1)}, "std .*, wanted three finite numbers"),
        ({"std": (0.0, 0.0, 0.0)}, "std .*, wanted three numbers above 0"),
        ({"std": (0.2, -0.2, 0.2)}, "std .*, wanted three numbers above 0"),
        ({"mean": None}, "wanted resize, crop, interpolation, mean and std"),
        ({"sharpness": 3}, "wanted resize, crop, interpolation, mean and std"),
    ],
)
def test_what_cannot_be_is_refused(changed, message):
    with pytest.raises(UsageError, match=f"^preprocessing: got .*{message}"):
        Preprocessing.from_dict(VALUES | changed)


def test_what_lacks_is_refused():
    with pytest.raises(UsageError, match="preprocessing: got .*, wanted resize, crop"):
        Preprocessing.from_dict({"resize": 256, "crop": 224})
