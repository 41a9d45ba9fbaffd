"""Images that stand in two sets: what is fitted or thought known should not be tested on."""

from collections.abc import Mapping

import numpy as np

from jaxood.runner.features import Features

NUMBERS = 8  # of an image's logits, and of its pooled features, that are compared
DECIMALS = 3  # of them: in another batch the same image differs by rounding


def shared(sets: Mapping[str, Features]) -> dict[str, str]:
    """By a set's name, a line about those of its images that an earlier set has too.

    By content, whatever the files are called: images are known by what the network makes of them.
    """
    known: dict[str, set[bytes]] = {}
    found = {}
    for name, features in sets.items():
        keys = _keys(features)
        counts = {other: sum(key in theirs for key in keys) for other, theirs in known.items()}
        shared_with = [f'{count} in "{other}"' for other, count in counts.items() if count]
        if shared_with:
            found[name] = f"{name}: of {len(keys)} images, {', '.join(shared_with)} too"
        known[name] = set(keys)
    return found


def _keys(features: Features) -> list[bytes]:
    step = max(1, features.pooled.shape[1] // NUMBERS)
    chosen = [features.logits[:, :NUMBERS], features.pooled[:, ::step][:, :NUMBERS]]
    rounded = np.round(np.concatenate(chosen, axis=1).astype(np.float64), DECIMALS)
    return [row.tobytes() for row in rounded + 0.0]  # no negative zero
