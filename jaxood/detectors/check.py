"""The contract that every detector, transform and view keeps, tried on a small synthetic model."""

import tempfile
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxood.context import Context, Extractor, Pooling
from jaxood.detectors.contract import DEPTHS, Detector, Transform, restricted
from jaxood.detectors.grammar import Part, parse_method
from jaxood.detectors.method import Method
from jaxood.detectors.saved import ARGUMENTS, DTYPES, SavedDetector, load_detector, save_detector
from jaxood.detectors.scoring import score_rows
from jaxood.errors import UsageError, require
from jaxood.heads import CosineHead, Head, LinearHead, NormLinearHead
from jaxood.outputs import ModelOutputs, model_outputs
from jaxood.spelling import imported, name_of, parameters_of

CHANNELS, CLASSES, NEGATIVES, SIZE = 16, 5, 7, 8
TRAIN, TEST = 160, 32
TOLERANCE = 1e-4  # of the largest score: what is compiled otherwise rounds otherwise


class PatchModel:
    """Patches of 2 x 2 pixels, a ReLU layer, mean, head."""

    pooling: Pooling = "mean"

    def __init__(self, head: Head):
        rng = np.random.default_rng(7)
        self.head = head
        self.kernel = jnp.asarray(rng.normal(size=(12, CHANNELS)) * 0.6, jnp.float32)

    def __call__(self, images: Float[Array, "n h w 3"]) -> ModelOutputs:
        patches = jnp.concatenate([images[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)
        features = jax.nn.relu(jnp.matmul(patches, self.kernel, precision="highest") + 0.1)
        return model_outputs(self.head, features.mean(axis=(1, 2)), features)


class Trial(NamedTuple):
    """Outputs of the synthetic model on the host, with a part's extras."""

    head: Head
    train: ModelOutputs
    labels: np.ndarray
    test: ModelOutputs


def check_detector(part: "str | Method | Part | type[Part]") -> None:
    """Tries whether a detector, transform or view keeps the contract.

    Frozen, hashable, all parameters with defaults; `fit` gives the class `State`, flat and of
    arrays; scores are one a row, float32 and finite; compiled or not, cut into batches or spread
    over devices they are the same; nothing is used that is not announced (`reads`, `extractors`,
    `needs_head`, `needs_train`, `needs_labels`); a file gives the same detector. On a linear head
    and on one with a norm, or on a cosine head where the part refuses these. Whether higher means
    in-distribution cannot be told this way.

    Args:
      part: of the user's own or one of ours; a Method has each of its parts checked, and itself.

    Raises:
      UsageError: that names the part, for the first thing that does not hold.
    """
    method = parse_method(part)
    for one in method.parts:
        _require_parameters(one)
    for head in _heads_for(method):
        extractors = tuple(method.extractors.values())
        for extractor in extractors:
            _require_per_image(extractor, PatchModel(head))
        _require_contract(method, _trial(head, extractors))


def _require_parameters(part: Part) -> None:
    kind, name = type(part), name_of(part)
    frozen = is_dataclass(kind) and kind.__dataclass_params__.frozen
    require(frozen, name, kind.__qualname__, "a frozen dataclass: @dataclass(frozen=True)")
    try:
        kind(), hash(part)
    except TypeError as error:
        wanted = "every field with a default, and hashable"
        raise UsageError(name, str(error), wanted) from error
    unseen = [field.name for field in fields(kind) if not field.init]  # type: ignore[arg-type]
    require(not unseen, name, f"field {unseen}, no parameter", "parameters alone as fields")
    again = kind(**parameters_of(part))
    require(again == part, name, f"{again} made of the parameters of {part}", "the same")


def _require_per_image(extractor: Extractor, model: PatchModel) -> None:
    name = extractor.key
    images, _ = _images(TEST, 12)
    whole = np.asarray(_run(extractor, model, images))
    got = f"an array of shape {whole.shape} for {TEST} images"
    require(whole.ndim > 1 and len(whole) == TEST, name, got, "a row an image")
    require(bool(np.isfinite(whole).all()), name, "values that are not finite", "finite ones")
    halves = [_run(extractor, model, part) for part in np.split(images, 2)]
    _require_same(name, np.concatenate(halves), whole, "in batches of half the size")


def _require_contract(method: Method, trial: Trial) -> None:
    name, head, test = method.name, trial.head, trial.test
    state = method.fit_state(trial.train, trial.labels, head)
    for step, fitted in zip(method.steps, state, strict=True):
        _require_flat(step, fitted)

    compiled = jax.jit(method.score)
    scores = np.asarray(compiled(state, test, head))
    got = f"scores of type {scores.dtype} and shape {scores.shape} for {TEST} images"
    require(scores.shape == (TEST,) and scores.dtype == np.float32, name, got, "float32, one each")
    require(bool(np.isfinite(scores).all()), name, "scores that are not finite", "finite ones")
    for step in method.steps:
        _require_honest(step, trial)
    eager = method.score(state, jax.tree.map(jnp.asarray, test), head)
    _require_same(name, eager, scores, "without jax.jit")
    quarters = [_rows(test, start, TEST // 4) for start in range(0, TEST, TEST // 4)]
    split = [compiled(state, quarter, head) for quarter in quarters]
    _require_same(name, np.concatenate(split), scores, "in batches of a quarter of the size")
    _require_same(name, score_rows(method, state, test, head), scores, "over all devices")

    loaded = _saved_and_loaded(method, state)
    again = jax.jit(loaded.method.score)(loaded.state, test, head)
    _require_same(name, again, scores, "saved and loaded")


def _require_flat(step: Transform | Detector, state: Any) -> None:
    name, kind = name_of(step), step.State
    require(type(state) is kind, name, f"a state of type {type(state).__name__}", kind.__name__)
    flat = kind is tuple or hasattr(kind, "_fields")
    require(flat, name, f"State = {kind.__name__}", "a NamedTuple of arrays, or the empty tuple")
    for field, array in zip(getattr(kind, "_fields", range(len(state))), state, strict=True):
        found = str(getattr(array, "dtype", type(array).__name__))
        require(found in DTYPES, name, f"{found} as {field} of the state", " or ".join(DTYPES))


def _require_honest(step: Transform | Detector, trial: Trial) -> None:
    """Nothing but what is announced makes a difference, where the rest is None."""
    name = name_of(step)
    keys = tuple(one.key for one in step.extractors)

    def results(announced: bool) -> dict[str, Any]:
        def read(outputs: ModelOutputs, needed: bool = True) -> Any:
            if not announced:
                return outputs
            return restricted(outputs, step.reads, keys) if needed else None

        head: Any = trial.head if step.needs_head or not announced else None
        labels = trial.labels if step.needs_labels or not announced else None
        state = step.fit(read(trial.train, step.needs_train), labels, head)
        if isinstance(step, Detector):
            return {"scores": step.score(state, read(trial.test), head)}
        changed = step.apply(state, read(trial.test), head)
        depths = {depth: getattr(changed, depth) for depth in DEPTHS}
        return {depth: array for depth, array in depths.items() if array is not None}

    expected = results(announced=False)
    try:
        found = results(announced=True)
    except Exception as error:
        got = f"{type(error).__name__} ({error}) where what it does not announce is None"
        wanted = "reads, extractors, needs_head, needs_train, needs_labels that say what it uses"
        raise UsageError(name, got, wanted) from error
    for what, values in found.items():
        without = f"in {what}, without what it does not announce"
        _require_same(name, values, expected[what], without)


def _require_same(name: str, found: Any, expected: Any, how: str) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    largest = np.abs(expected).max() + 1e-6
    right = found.shape == expected.shape
    away = np.abs(found - expected).max() / largest if right else np.inf
    wanted = f"the same, within {TOLERANCE:g} of the largest value"
    require(bool(away <= TOLERANCE), name, f"results that differ by {away:.2g} {how}", wanted)


def _saved_and_loaded(method: Method, state: Any) -> SavedDetector:
    model: dict[str, object] = dict.fromkeys(ARGUMENTS, "synthetic")
    kinds: list[type] = [type(part) for part in method.parts]
    texts = [text for part in method.parts for text in vars(part).values() if isinstance(text, str)]
    kinds += [imported(text, "method") for text in texts if ":" in text]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.safetensors"
        save_detector(path, SavedDetector(method, state, 0.0, 0.95, model))
        return load_detector(path, kinds)


def _rows(outputs: ModelOutputs, start: int, count: int) -> ModelOutputs:
    return jax.tree.map(lambda array: array[start : start + count], outputs)


def _images(count: int, seed: int) -> tuple[Float[np.ndarray, "n h w 3"], np.ndarray]:
    """A template a class, with noise; and the classes, with a few that are wrong."""
    templates = np.random.default_rng(1).normal(size=(CLASSES, SIZE, SIZE, 3))
    rng, labels = np.random.default_rng(seed), np.arange(count) % CLASSES
    images = templates[labels] + 1.2 * rng.normal(size=(count, SIZE, SIZE, 3))
    return images.astype(np.float32), np.where(rng.random(count) < 0.05, 0, labels)


@cache
def _heads() -> tuple[Head, ...]:
    rng = np.random.default_rng(3)
    sizes = ((CHANNELS, CLASSES), (CLASSES,), (CHANNELS,), (CHANNELS,), (CHANNELS, NEGATIVES))
    kernel, bias, scale, shift, negatives = (
        jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes
    )
    return (
        LinearHead(kernel, bias),
        NormLinearHead(scale, shift, kernel, bias),
        CosineHead(kernel, 20.0, negatives),
    )


def _heads_for(method: Method) -> tuple[Head, ...]:
    """A linear head and one with a norm; a cosine head, where the method refuses one of these."""
    *usual, cosine = _heads()
    try:
        for head in usual:
            method.check_head(head)
    except UsageError:
        method.check_head(cosine)
        return (cosine,)
    return tuple(usual)


@partial(jax.jit, static_argnums=(0, 1))
def _run(extractor: Extractor | None, model: PatchModel, images: Array) -> Any:
    outputs = model(images)
    if extractor is None:
        return outputs._replace(feature_map=None)
    target = jnp.argmax(outputs.logits, axis=1)
    return extractor(Context(images, outputs, model, target, jax.random.key(0)))


def _trial(head: Head, extractors: tuple[Extractor, ...]) -> Trial:
    model = PatchModel(head)

    def extracted(images: np.ndarray) -> ModelOutputs:
        extras = {one.key: np.asarray(_run(one, model, images)) for one in extractors}
        return jax.device_get(_run(None, model, images))._replace(extras=extras)

    images, labels = _images(TRAIN, 11)
    test, _ = _images(TEST, 12)
    return Trial(head, extracted(images), labels, extracted(test))
