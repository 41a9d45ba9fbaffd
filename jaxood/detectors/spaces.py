"""OpenOOD's hyper-parameter search: the values that it tries of each postprocessor.

As in its configuration files (v1.5, the lists `postprocessor_sweep`), of those for which it makes
a search with more than one value. It keeps the combination with the highest AUROC of ID against
OOD validation images, the first of equal ones: its first parameter changes fastest.

Names differ: its `ash` is `ash-b` here, and the two other forms are given its list as well; its K,
pow, noise, M and percentile_high are k, pow, epsilon, top and high; its distance_as_normalizer is
`fdbd.by`. Its postprocessors for networks trained otherwise (CIDER, NPOS) are not here.
"""

import itertools
from collections.abc import Mapping, Sequence

Space = tuple[Mapping[str, object], ...]

PERCENTILES = (65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)
PAIRED = (60.0, *PERCENTILES, 99.0)


def product(**values: Sequence[object]) -> Space:
    """All combinations; the first parameter changes fastest."""
    names = list(values)
    combinations = itertools.product(*reversed(list(values.values())))
    return tuple(dict(zip(names, reversed(chosen), strict=True)) for chosen in combinations)


NUDGES = product(temperature=(1.0, 10.0, 100.0, 1000.0), epsilon=(0.0014, 0.0028))
PAIRS = tuple({"low": low, "high": high} for low, high in itertools.combinations(PAIRED, 2))

OPENOOD: Mapping[str, Space] = {
    "react": product(percentile=(85.0, 90.0, 95.0, 99.0)),
    "ash-p": product(percentile=PERCENTILES),
    "ash-b": product(percentile=PERCENTILES),
    "ash-s": product(percentile=PERCENTILES),
    "scale": product(percentile=PERCENTILES),
    "vra": product(high=(85.0, 90.0, 95.0, 99.0), low=(1.0, 5.0, 10.0, 15.0)),
    "adascale-a": PAIRS,
    "adascale-l": PAIRS,
    "knn": product(k=(50, 100, 200, 500, 1000)),
    "vim": product(dim=(256, 1000)),
    "gen": product(gamma=(0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0), top=(10, 50, 100, 200, 500, 1000)),
    "odin": NUDGES,
    "i-odin": NUDGES,
    "fdbd": product(by=("distance", "norm")),
    "nci": product(alpha=(0.0001, 0.001, 0.01, 0.1)),
    "relation": product(pow=(1.0, 2.0, 4.0, 6.0, 8.0)),
}
