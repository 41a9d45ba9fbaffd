"""Measures on the real MobileNetV2 against numbers that Quantus 0.6.0 and captum 0.9.0 gave.

Recorded on torchvision's network in torch 2.13.0, for the photograph and map below, which Quantus
saw through a mask of one channel: `baseline=zero` is `perturb_baseline=0.0`, x_batch a mask of 1,
normalise and abs off (on for sparseness and complexity), softmax on. Features in a step: 1024
pixels. Insertion is its PixelFlipping from the blurred picture to the image; sensitivity-n its
FaithfulnessCorrelation, once a size; random subsets and squares were ours.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from references import imagenet_photographs
from test_road import converted_mobilenet

from jaxood.attribution.heatmap import upsample
from jaxood.data.decode import read
from jaxood.perturbation.measure import Laboratory
from jaxood.perturbation.measures import measure
from jaxood.perturbation.subject import Subject
from jaxood.runner.runner import Runner

pytestmark = [pytest.mark.long, pytest.mark.optimised]

POINTS = (0, 12, 24, 36, 48)  # of its curves, whose first point is our second
CURVES = {
    "pixel-flipping[steps=49]": [0.775687, 0.0206521, 0.00054577, 6.4688e-05, 0.00027858],
    "deletion[steps=49]": [0.775687, 0.0206521, 0.00054577, 6.4688e-05, 0.00027858],
    "insertion[steps=49]": [0.00020281, 0.0066349, 0.0118469, 0.2565646, 0.8916784],
    "selectivity[steps=196,patch=16]": [0.8828925, 0.7885525, 0.7605796, 0.6820453, 0.5078337],
    "sensitivity-n[subsets=30,sizes=3,patch=1]": [-0.2729803, 0.1366062, -0.2605347],
}
VALUES = {  # By definition the mean of its curve, the trapezoid rule over 48 steps.
    "pixel-flipping[steps=49]": 0.11213498,
    # The mean of Quantus's differences, and of 0 for the whole image.
    "region-perturbation[baseline=zero,regions=40,patch=16]": 0.126948,
    "monotonicity-correlation[steps=49]": 0.2296939,
    "faithfulness-correlation[subsets=50,share=0.2,patch=1]": -0.1820914,
    "sparseness": 0.2885048,
    "complexity": 10.6713886,
    "infidelity[squares=40,side=32]": 0.001845125,  # captum's, normalize=True
    "average-drop": 0.3032167,  # the torch network on the image times the map
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    model = converted_mobilenet(tmp_path_factory.mktemp("weights"))
    path = imagenet_photographs()[3]
    rng = np.random.default_rng(0)
    given = np.asarray(upsample(jnp.asarray(rng.random((1, 7, 7), np.float32)), (224, 224)))[0]
    given = (given + 1e-4 * rng.random((224, 224))).astype(np.float32)
    subject = Subject(path.name, read(str(path), model.preprocessing), 328, {"given": given})
    laboratory = Laboratory(Runner(model))

    def measured(text):
        (one,) = measure(text).findings(laboratory, [subject])
        return one

    return measured


@pytest.mark.parametrize("text", CURVES)
def test_curves(found, text):
    curve = found(text).curves[""]
    skipped = 0 if text.startswith(("pixel-flipping", "sensitivity-n")) else 1
    points = curve[skipped:] if len(CURVES[text]) < 5 else [curve[skipped + i] for i in POINTS]
    np.testing.assert_allclose(points, CURVES[text], atol=1e-4)


@pytest.mark.parametrize("text", VALUES)
def test_values(found, text):
    assert found(text).values[""] == pytest.approx(VALUES[text], rel=1e-3)
