"""CLIP's image tower against timm's, from the keys of three publishers; its head of texts."""

import warnings
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from references import import_timm
from torch_networks import noise, randomise

import jaxood
from jaxood.attribution.registry import ATTRIBUTIONS
from jaxood.cli import main
from jaxood.conversion import convert, convert_state_dict
from jaxood.conversion.checkpoint import from_tensors
from jaxood.conversion.convert import recognise
from jaxood.conversion.parity import Depths, errors, run
from jaxood.data.images import Arrays
from jaxood.data.suite import Suite
from jaxood.detectors.registry import DETECTORS, TRANSFORMS, VIEWS
from jaxood.errors import UsageError
from jaxood.models.clip import clip
from jaxood.models.loading import abstract_model, fill
from jaxood.models.registry import ARCHITECTURES, Architecture
from jaxood.models.weights_file import open_weights

torch = pytest.importorskip("torch")

SIDE, WIDTH, SPACE = 64, 48, 20
SIZES = {"image_size": SIDE, "depth": 3, "width": WIDTH, "heads": 3, "space": SPACE}
NAMES = {False: "clip_vit_b_16", True: "clip_vit_b_16_quickgelu"}


@pytest.fixture
def small(monkeypatch):
    """Both networks under their names, at this size."""
    for quick, name in NAMES.items():
        tags = ARCHITECTURES[name].tags
        build = partial(clip, quick=quick, **SIZES)
        monkeypatch.setitem(ARCHITECTURES, name, Architecture(build, tags))


def timms(quick: bool):
    module = import_timm("timm.models.vision_transformer")
    network = module.VisionTransformer(
        img_size=SIDE,
        embed_dim=WIDTH,
        depth=3,
        num_heads=3,
        num_classes=SPACE,
        pre_norm=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-5),
        act_layer="quick_gelu" if quick else "gelu",
    )
    return randomise(network)


def depths(network, images, scale, columns) -> Depths:
    """All tokens through norm and projection; cosines to the columns."""
    with torch.inference_mode():
        tokens = network.head(network.forward_features(torch.tensor(images.transpose(0, 3, 1, 2))))
    tokens = tokens.numpy()
    grid = tokens[:, 1:].reshape(len(images), 4, 4, SPACE)
    unit = tokens[:, 0] / np.linalg.norm(tokens[:, 0], axis=1, keepdims=True)
    return Depths(grid, tokens[:, 0], scale * unit @ columns / np.linalg.norm(columns, axis=0))


def openais(state) -> dict:
    """timm's state dict under OpenAI's names, by hand."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in (
            ("norm1", "ln_1"),
            ("norm2", "ln_2"),
            ("blocks.", "transformer.resblocks."),
            ("attn.proj", "attn.out_proj"),
            ("attn.qkv.", "attn.in_proj_"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("patch_embed.proj", "conv1"),
            ("norm_pre", "ln_pre"),
            ("cls_token", "class_embedding"),
            ("pos_embed", "positional_embedding"),
        ):
            key = key.replace(ours, theirs)
        renamed[f"visual.{key.replace('norm.', 'ln_post.')}"] = value
    renamed["visual.class_embedding"] = renamed["visual.class_embedding"][0, 0]
    renamed["visual.positional_embedding"] = renamed["visual.positional_embedding"][0]
    renamed["visual.proj"] = renamed.pop("visual.head.weight").T
    assert not renamed.pop("visual.head.bias").any()
    return renamed | {
        "logit_scale": torch.tensor(3.0),
        "positional_embedding": torch.ones(77, 8),
        "text_projection": torch.ones(8, 8),
        "transformer.resblocks.0.ln_1.weight": torch.ones(8),
        "token_embedding.weight": torch.ones(9, 8),
        "ln_final.weight": torch.ones(8),
        "context_length": torch.tensor(77),
    }


def huggingfaces(state) -> dict:
    """timm's state dict under transformers' names, by hand."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("blocks.", "vision_model.encoder.layers.")
        for ours, theirs in (
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
            ("attn.proj", "self_attn.out_proj"),
            ("attn.qkv", "self_attn.qkv"),
            ("patch_embed.proj", "vision_model.embeddings.patch_embedding"),
            ("cls_token", "vision_model.embeddings.class_embedding"),
            ("pos_embed", "vision_model.embeddings.position_embedding.weight"),
            ("norm_pre", "vision_model.pre_layrnorm"),
            ("head.", "visual_projection."),
        ):
            key = key.replace(ours, theirs)
        key = f"vision_model.post_layernorm.{key[5:]}" if key.startswith("norm.") else key
        if "self_attn.qkv" in key:
            for name, part in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
                renamed[key.replace("qkv", name)] = part
        else:
            embedding = "embeddings" in key and "patch" not in key
            renamed[key] = value.squeeze() if embedding else value
    assert not renamed.pop("visual_projection.bias").any()
    return renamed | {
        "logit_scale": torch.tensor(3.0),
        "text_model.final_layer_norm.weight": torch.ones(8),
        "text_model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(8, 8),
        "text_projection.weight": torch.ones(8, 8),
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }


PUBLISHERS = {"timm": dict, "openai": openais, "transformers": huggingfaces}


@pytest.mark.parametrize("quick", [pytest.param(False, marks=pytest.mark.long), True])
@pytest.mark.parametrize("layout", PUBLISHERS)
def test_three_depths(small, layout, quick):
    network = timms(quick)
    if layout != "timm":
        network.head.bias.data.zero_()
    state = PUBLISHERS[layout](network.state_dict())
    match = recognise(from_tensors(state).shapes, NAMES[quick])
    assert (match.num_classes, match.plan.layout.name) == (0, layout)
    arrays = convert_state_dict(state, NAMES[quick])
    scale = 100.0 if layout == "timm" else np.exp(3.0)  # timm keeps none
    np.testing.assert_allclose(arrays["classifier/scale"], scale, rtol=1e-6)
    columns = np.random.default_rng(2).normal(size=(SPACE, 5)).astype(np.float32)
    arrays |= {"classifier/columns": columns, "classifier/negatives": columns[:, :0]}
    model = fill(abstract_model(NAMES[quick], 5), lambda path: jnp.asarray(arrays[path]))
    images = noise(2, SIDE)
    assert max(errors(run(model, images), depths(network, images, scale, columns)).values()) < 1e-5
    other = fill(abstract_model(NAMES[not quick], 5), lambda path: jnp.asarray(arrays[path]))
    wrong = errors(run(other, images), depths(network, images, scale, columns))
    assert min(wrong.values()) > 1e-4  # the activation is not the same


def test_timm_reads_what_is_called_openais_here(small):
    """So that the names of `openais` are not ours alone."""
    network = timms(True)
    network.head.bias.data.zero_()
    module = import_timm("timm.models.vision_transformer")
    read = module._convert_openai_clip(openais(network.state_dict()), network)
    assert read.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(read[key], value), key


def test_neither_activation_is_guessed(small):
    shapes = {key: tuple(value.shape) for key, value in timms(True).state_dict().items()}
    with pytest.raises(UsageError, match="arch: got none, wanted one of clip_vit_b_16, clip_vit"):
        recognise(shapes, None)


def test_a_program_is_refused_with_what_to_do(tmp_path):
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "ViT-B-16.pt")
    line = r"got .*ViT-B-16.pt, a TorchScript program, wanted .*Keep its weights alone: torch.save"
    with pytest.raises(UsageError, match=line):
        convert(tmp_path / "ViT-B-16.pt", tmp_path / "w.safetensors")


@pytest.mark.long
@pytest.mark.parametrize("quick", [False, True])
def test_full_size_equals_timms(quick):
    name = "vit_base_patch16_clip_quickgelu_224" if quick else "vit_base_patch16_clip_224"
    network = randomise(import_timm().create_model(name, num_classes=512), 224)
    arrays = convert_state_dict(network.state_dict(), NAMES[quick])
    model = fill(abstract_model(NAMES[quick], 0), lambda path: jnp.asarray(arrays[path]))
    images = noise(2, 224)
    with torch.inference_mode():
        tensor = torch.tensor(images.transpose(0, 3, 1, 2))
        tokens = network.head(network.forward_features(tensor)).numpy()
    found = run(model, images)
    for ours, theirs in (
        (found.pooled, tokens[:, 0]),
        (found.feature_map, tokens[:, 1:].reshape(2, 14, 14, 512)),
    ):
        assert np.abs(np.asarray(ours) - theirs).max() < 1e-4 * np.abs(theirs).max()


# The head of texts.

RNG = np.random.default_rng(0)
CLASSES, NEGATIVES = (RNG.normal(size=(rows, SPACE)).astype(np.float32) for rows in (4, 7))
TEXTS = {"classes": CLASSES, "names": np.array(["cat", "dog", "owl", "eel"])}
PREPARED = ["--resize", "64", "--crop", "64"]


@pytest.fixture
def tower(small, tmp_path):
    """A weights file without a head, and the network that it came from."""
    network = timms(True)
    network.head.bias.data.zero_()
    torch.save(openais(network.state_dict()), tmp_path / "tower.pth")
    output = tmp_path / "tower.safetensors"
    command = ["--checkpoint", tmp_path / "tower.pth", "--output", output, "--arch"]
    command += ["clip_vit_b_16_quickgelu.openai", *PREPARED]
    assert main("convert", list(map(str, command))) == 0
    return output, network


def images_of(count: int, name: str, seed: int) -> Arrays:
    pictures = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return Arrays(pictures, np.arange(count) % 4, name)


@pytest.mark.long
def test_texts_become_a_head(tower, tmp_path, capsys):
    weights, network = tower
    np.savez(tmp_path / "texts.npz", **TEXTS, negatives=NEGATIVES)
    output = tmp_path / "zero-shot.safetensors"
    command = ["--weights", weights, "--output", output, "--texts", tmp_path / "texts.npz"]
    capsys.readouterr()
    assert main("head", list(map(str, command))) == 0
    told = capsys.readouterr().out
    assert "texts of 4 classes and 7 negatives, scale 20.0855" in told
    _, info = open_weights(output)
    assert (info.num_classes, info.negatives) == (4, 7)

    model = jaxood.load_model(output)
    assert model.class_names == ("cat", "dog", "owl", "eel")
    sets = images_of(12, "test", 1)
    found = jaxood.evaluate(
        model, Suite("own", None, sets, {"ood": images_of(9, "ood", 2)}), ["mcm", "neglabel"]
    )
    normalised = np.asarray(model.preprocessing.normalise(jnp.asarray(sets.images)))
    pooled = np.float64(depths(network, normalised, 1.0, CLASSES.T).pooled)
    unit, classes, negatives = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (pooled, CLASSES, NEGATIVES)
    )
    expected = np.exp(unit @ classes.T)
    expected = (expected / expected.sum(axis=1, keepdims=True)).max(axis=1)
    for_classes = np.exp(unit @ classes.T / 0.01).sum(axis=1, keepdims=True)
    shares = for_classes / (for_classes + np.exp(unit @ negatives.T / 0.01))  # seven groups of one
    mean = shares.mean(axis=1)
    scores = {one.method: one.scores.id for one in found.results}
    np.testing.assert_allclose(scores["mcm"], expected, rtol=1e-4)
    known = np.clip(mean, 1e-12, 1 - 1e-12)
    np.testing.assert_allclose(scores["neglabel"], np.log(known / (1 - known)), rtol=2e-3, atol=0.1)
    right = (unit @ classes.T).argmax(axis=1) == np.arange(12) % 4
    assert found.accuracy == right.mean()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["linear", "class-mean"])
def test_images_become_a_head_of_the_tower(tower, tmp_path, kind):
    weights, _ = tower
    output = tmp_path / "w.safetensors"
    images = np.repeat(np.arange(2), 12)[:, None, None, None] * 120 + np.zeros((1, SIDE, SIDE, 3))
    images = images + np.random.default_rng(0).integers(0, 90, images.shape)
    train = Arrays(images.astype(np.uint8), np.repeat(np.arange(2), 12), "t", False, ("b", "w"))
    report = jaxood.head(weights, output, kind, train=train, validation=train)
    assert report.train_accuracy == report.validation_accuracy == 1
    model = jaxood.load_model(output)
    wanted = "LinearHead" if kind == "linear" else "CosineHead"
    assert type(model.head).__name__ == wanted and model.class_names == ("b", "w")
    # And texts again: at their scale, or at what CLIP's training ends with.
    np.savez(tmp_path / "texts.npz", **TEXTS)
    jaxood.head(output, output, texts=tmp_path / "texts.npz")
    assert float(jaxood.load_model(output).head.scale) == 100.0
    np.savez(tmp_path / "texts.npz", **TEXTS, scale=50.0)
    jaxood.head(output, output, texts=tmp_path / "texts.npz")
    assert float(jaxood.load_model(output).head.scale) == 50.0


@pytest.mark.long
def test_every_method_and_map_runs_on_it_or_says_why_not(tower, tmp_path):
    """On a class token and a head of cosines."""
    weights, _ = tower
    np.savez(tmp_path / "texts.npz", **TEXTS, negatives=NEGATIVES)
    jaxood.head(weights, tmp_path / "w.safetensors", texts=tmp_path / "texts.npz")
    model = jaxood.load_model(tmp_path / "w.safetensors")
    train, test, ood = (images_of(count, f"{count}", count) for count in (60, 24, 16))
    sets, refused = Suite("own", train, test, {"ood": ood}), {}
    for name in (*DETECTORS, *TRANSFORMS, *VIEWS):
        try:
            result = jaxood.evaluate(model, sets, [name], batch_size=8)
        except UsageError as error:
            refused[name] = str(error)
            continue
        for found in result.results:
            scores = found.scores.id
            assert np.isfinite(scores).all() and len(np.unique(scores)) > 1, name
    assert refused.keys() == {"sfp", "rankfeat"}
    for line in refused.values():
        assert "got a model that classifies its class token, wanted a model that pools by" in line
    refused = {}
    for name in ATTRIBUTIONS:
        try:
            found = jaxood.attribute(model, [test.images[0]], [name], seed=0)
        except UsageError as error:
            refused[name] = str(error)
            continue
        assert np.isfinite(next(iter(found.maps.values()))).all(), name
    positions = {"banzhaf", "shapley", "pie", "leave-one-out", "interaction"}
    assert refused.keys() == positions | {"fullgrad", "guided-backprop"}
    for name in positions:
        assert "wanted a model that pools by the mean over positions" in refused[name]
