"""Score-CAM of all 1,280 channels of a real MobileNetV2 against torchcam's, same map."""

import argparse
import tempfile
from pathlib import Path

import benchmarks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=1, help="photographs, one at a time")
    parser.add_argument("--chunk", type=int, help="masked images that go forward together")
    parser.add_argument("--torch-batch-size", type=int, default=32, help="torchcam's default")
    parser.add_argument("--repeats", type=int, default=2)


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    faster = f"{figures['speed_over_torchcam']:.1f} x as fast, same map"
    return [("Score-CAM of 1,280 channels, MobileNetV2", "torchcam", faster)]


def run(args: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from flax import nnx

    from jaxood.attribution.heatmap import unit_scale
    from jaxood.attribution.score_cam import ScoreCAM
    from jaxood.compiling import jit
    from jaxood.context import Context
    from jaxood.conversion import convert
    from jaxood.conversion.parity import import_publisher
    from jaxood.data.photos import photos_suite
    from jaxood.demo.photos import mobilenet_v2_checkpoint
    from jaxood.flows.sources import load_model

    checkpoint = mobilenet_v2_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "mobilenet_v2.safetensors"
        convert(checkpoint, weights)
        model = load_model(weights, arch="mobilenet_v2")
    graph, state = nnx.split(model.module)
    reference = import_publisher("torchvision.models").mobilenet_v2()
    TorchScoreCAM = import_publisher("torchcam.methods").ScoreCAM
    reference.load_state_dict(torch.load(checkpoint, weights_only=True))
    reference.eval()

    (batch,) = (
        photos_suite()
        .id_test.subset(np.arange(args.images))
        .batches(model.preprocessing, args.images)
    )
    images = model.preprocessing.normalise(jnp.asarray(batch.images))
    as_torch = torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())
    target = jax.jit(model.module)(images).logits.argmax(-1)

    @jit
    def attribute(state, image, target):
        module = nnx.merge(graph, state)
        context = Context(image, module(image), module, target, jax.random.key(0))
        return unit_scale(ScoreCAM(chunk=args.chunk)(context))

    def ours():
        pairs = zip(images, target, strict=True)
        maps = [attribute(state, image[None], top[None]) for image, top in pairs]
        return np.concatenate(jax.device_get(maps))

    def theirs():
        maps = []
        for image, top in zip(as_torch, target.tolist(), strict=True):
            size = args.torch_batch_size
            with (
                TorchScoreCAM(reference, "features.18", batch_size=size) as extractor,
                torch.inference_mode(),
            ):
                reference(image[None])
                maps.append(extractor(top)[0].numpy())
        return np.concatenate(maps)

    error = float(np.abs(ours() - theirs()).max())
    assert error <= 1e-3, error

    seconds = benchmarks.seconds_in_turn({"jaxood": ours, "torchcam": theirs}, args.repeats)
    return {
        "seconds_an_image": {name: taken / args.images for name, taken in seconds.items()},
        "speed_over_torchcam": seconds["torchcam"] / seconds["jaxood"],
        "largest_difference": error,
    }
