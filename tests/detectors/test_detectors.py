"""One contract for every detector, transform and view; and what `check_detector` finds."""

import functools
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_detection as toy
from jaxtyping import Array, Float

from jaxood.context import View
from jaxood.detectors.check import check_detector
from jaxood.detectors.contract import Detector, Transform
from jaxood.detectors.grammar import parse_method
from jaxood.detectors.registry import VIEWS
from jaxood.errors import UsageError
from jaxood.outputs import with_penultimate


@functools.partial(jax.jit, static_argnums=0)
def score(method, state, outputs, head):
    return method.score(state, outputs, head)


@functools.cache
def fitted(name: str, kind: str | None = None):
    head, train, labels, _, _ = toy.data(kind or toy.home(name))
    method = parse_method(name)
    needed = method.needs_train
    return method, method.fit_state(train if needed else None, labels, head)


def with_extras_of(method, outputs):
    return outputs._replace(extras={key: outputs.extras[key] for key in method.extractors})


def assert_close(actual, expected):
    scale = np.abs(expected).max() + 1e-6
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5 * scale)


QUICK = ("msp", "knn", "react", "mahalanobis", "rankfeat", "gram")


@pytest.mark.parametrize("name", QUICK)
def test_contract(name):
    check_detector(name)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [*sorted(set(toy.NAMES) - set(QUICK)), "knn[features=pooled]", "sfp+react+ash-s+nnguide"],
)
def test_contract_of_the_others(name):
    check_detector(name)


@pytest.mark.parametrize("name", toy.NAMES)
def test_scores_tell_images_apart(name):
    head, _, _, _, test = toy.data(toy.home(name))
    method, state = fitted(name)
    scores = np.asarray(score(method, state, with_extras_of(method, test), head))
    assert len(np.unique(scores)) > toy.BATCH // 2 or name == "gram"


@pytest.mark.parametrize("name", toy.NAMES)
def test_logits_far_below_zero(name):
    """And energies; channels 3 and 5 never move."""
    head, _, _, _, test = toy.data("negative")
    if name in ("cadref", *toy.COSINE):
        line = "got (training images with a mean energy of -2|a LinearHead, wanted a CosineHead)"
        with pytest.raises(UsageError, match=line):
            fitted(name, "negative")
        return
    method, state = fitted(name, "negative")
    scores = np.asarray(score(method, state, with_extras_of(method, test), head))
    assert np.isfinite(scores).all()


def test_sfp_refuses_a_cosine_head():
    """What a coalition is worth is not known there; every other method has a reference."""
    head = toy.head_of("cosine")
    with pytest.raises(UsageError, match="head: got CosineHead, wanted LinearHead or NormLinear"):
        parse_method("sfp").view(toy.context_of(jnp.asarray(toy.images_of(2, 1)[0]), head))


@pytest.mark.parametrize("name", [name for name in toy.NAMES if name not in VIEWS])
def test_constant_and_zero_features(name):
    head, _, _, _, test = toy.data(toy.home(name))
    method, state = fitted(name)

    def flat(outputs, value):
        rows = np.full_like(outputs.pooled, value)
        extras = {key: np.full_like(outputs.extras[key], value) for key in method.extractors}
        logits = np.asarray(head(rows))
        return outputs._replace(pooled=rows, penultimate=rows, logits=logits, extras=extras)

    for value in (0.0, 0.5, -0.5, 2.0):
        scores = np.asarray(score(method, state, flat(test, value), head))
        assert np.isfinite(scores).all(), value


def test_extractors_are_per_image():
    head, _, _, images, test = toy.data()
    others = toy.extract(np.concatenate([images[:20], images[::-1][:12]]), head)
    for name, rows in test.extras.items():
        assert_close(others.extras[name], np.concatenate([rows[:20], rows[::-1][:12]]))


def test_in_distribution_scores_higher():
    """Direction: images like those of training against the same templates turned upside down."""
    near, labels = toy.images_of(96, 21, spread=0.6)
    noise = np.random.default_rng(22).normal(size=near.shape).astype(np.float32)
    far = toy.TEMPLATES[labels][:, ::-1, :, ::-1] + np.float32(0.3) * noise
    heads = {kind: toy.head_of(kind) for kind in ("linear", "cosine")}
    outputs = {
        kind: (toy.extract(near, head), toy.extract(far, head)) for kind, head in heads.items()
    }
    for name in toy.NAMES:
        method, state = fitted(name)
        head, (inside, outside) = heads[toy.home(name)], outputs[toy.home(name)]

        def scores(outputs, method=method, state=state, head=head):
            parts = [slice(start, start + toy.BATCH) for start in range(0, 96, toy.BATCH)]
            blocks = [jax.tree.map(lambda a, part=part: a[part], outputs) for part in parts]
            return np.concatenate(
                [score(method, state, with_extras_of(method, block), head) for block in blocks]
            )

        known, new = scores(inside), scores(outside)
        auroc = np.mean(known[:, None] > new[None, :])
        assert auroc > 0.53, (name, auroc)


def test_every_part_says_where_it_comes_from():
    for name in toy.NAMES:
        for part in parse_method(name).parts:
            assert type(part).paper and (type(part).__doc__ or "").strip(), name


# Parts of a user's own: one that keeps the contract, and one for each thing that may be wrong.


class Centre(NamedTuple):
    centre: Float[Array, " c"]


@dataclass(frozen=True)
class ToCentre(Detector):
    """Minus the distance to the mean training feature."""

    State: ClassVar[type] = Centre
    needs_train: ClassVar[bool] = True
    reads: ClassVar[tuple] = ("penultimate",)

    power: float = 1.0

    def fit(self, train, labels, head):
        return Centre(jnp.asarray(train.penultimate).mean(axis=0))

    def score(self, state, outputs, head):
        lengths = jnp.linalg.norm(outputs.penultimate - state.centre[None, :], axis=1)
        return -(lengths**self.power)


@dataclass(frozen=True)
class Halved(Transform):
    needs_head: ClassVar[bool] = True
    reads: ClassVar[tuple] = ("penultimate",)

    def apply(self, state, outputs, head):
        return with_penultimate(outputs, outputs.penultimate / 2, head)


@dataclass(frozen=True)
class FirstRow(View):
    def __call__(self, context):
        return context.feature_map[:, 0].mean(axis=1)


@pytest.mark.long
def test_parts_of_the_users_own_pass():
    for part in (ToCentre(), ToCentre(power=2.0), ToCentre, Halved(), FirstRow()):
        check_detector(part)


@dataclass(frozen=True)
class Wrong(ToCentre):  # a shorthand of these tests
    """One that overrides a thing and is wrong in that."""


@dataclass(frozen=True)
class NotPerRow(Wrong):
    def score(self, state, outputs, head):
        scores = super().score(state, outputs, head)
        return scores - scores.mean()


@dataclass(frozen=True)
class TwoColumns(Wrong):
    def score(self, state, outputs, head):
        return jnp.stack([super().score(state, outputs, head)] * 2, axis=1)


@dataclass(frozen=True)
class NotFinite(Wrong):
    def score(self, state, outputs, head):
        return super().score(state, outputs, head) * jnp.inf


@dataclass(frozen=True)
class ReadsMore(Wrong):
    def score(self, state, outputs, head):
        return super().score(state, outputs, head) + outputs.logits.max(axis=1)


@dataclass(frozen=True)
class UsesHead(Wrong):
    def score(self, state, outputs, head):
        return super().score(state, outputs, head) + head.bias.sum()


@dataclass(frozen=True)
class UsesLabels(Wrong):
    def fit(self, train, labels, head):
        return Centre(jnp.asarray(train.penultimate)[np.asarray(labels) == 0].mean(axis=0))


@dataclass(frozen=True)
class OtherState(Wrong):
    def fit(self, train, labels, head):
        return (super().fit(train, labels, head).centre,)


@dataclass(frozen=True)
class NoArrays(Wrong):
    def fit(self, train, labels, head):
        return Centre([1.0, 2.0])


@dataclass(frozen=True)
class ForgetsWhenLoaded(Wrong):
    def restored(self, state):
        return Centre(jnp.zeros_like(state.centre))


@dataclass(frozen=True)
class JitDiffers(Wrong):
    def score(self, state, outputs, head):
        scores = super().score(state, outputs, head)
        return scores if isinstance(scores, jax.core.Tracer) else 2 * scores


@dataclass
class NotFrozen(Detector):
    def score(self, state, outputs, head):
        return outputs.logits.max(axis=1)


@dataclass(frozen=True)
class NoDefault(Wrong):
    power: float = field(kw_only=True)


@dataclass(frozen=True)
class NotHashable(Wrong):
    power: Any = field(default_factory=list)


@dataclass(frozen=True)
class ViewOfTheBatch(View):
    def __call__(self, context):
        return context.outputs.pooled - context.outputs.pooled.mean(axis=0, keepdims=True)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (NotPerRow(), r"NotPerRow: got results that differ by .* in batches of a quarter"),
        (TwoColumns(), r"TwoColumns: got scores of type float32 and shape \(32, 2\) for 32 images"),
        (NotFinite(), r"NotFinite: got scores that are not finite"),
        (ReadsMore(), r"ReadsMore: got AttributeError .* where what it does not announce is None"),
        (UsesHead(), r"UsesHead: got AttributeError .* needs_head, needs_train"),
        (UsesLabels(), r"UsesLabels: got .* where what it does not announce is None"),
        (OtherState(), r"OtherState: got a state of type tuple, wanted Centre"),
        (NoArrays(), r"NoArrays: got list as centre of the state, wanted float32 or"),
        (ForgetsWhenLoaded(), r"ForgetsWhenLoaded: got results that differ by .* saved and loaded"),
        (JitDiffers(), r"JitDiffers: got results that differ by .* without jax.jit"),
        (NotFrozen(), r"NotFrozen: got NotFrozen, wanted a frozen dataclass"),
        (NoDefault(power=1.0), r"NoDefault: got .*'power', wanted every field with a default"),
        (NotHashable(), r"NotHashable: got unhashable type: 'list', wanted every field"),
        (ViewOfTheBatch(), r"ViewOfTheBatch: got results that differ by .* half the size"),
    ],
)
def test_what_is_wrong_is_named(part, line):
    with pytest.raises(UsageError, match=line):
        check_detector(part)


def test_a_score_that_is_missing_is_an_error_when_made():
    @dataclass(frozen=True)
    class Scoreless(Detector):
        pass

    with pytest.raises(TypeError, match="abstract method '?score'?"):
        Scoreless()
