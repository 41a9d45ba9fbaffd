"""Score-CAM of all 1,280 channels of a real MobileNetV2 against torchcam's, same map."""

import argparse
import tempfile
from pathlib import Path

import benchmarks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=1, help="photographs, one at a time")
    parser.add_argument("--chunks", type=int, nargs="+", default=[16, 32], help="sizes to try")
    parser.add_argument("--torch-batch-size", type=int, default=32, help="torchcam's default")
    parser.add_argument("--repeats", type=int, default=2)


def run(args: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from flax import nnx
    from references import import_torchvision
    from torchcam.methods import ScoreCAM as TorchScoreCAM

    from jaxood.attribution.heatmap import unit_scale
    from jaxood.attribution.score_cam import ScoreCAM
    from jaxood.conversion import convert_checkpoint
    from jaxood.data.suites import mobilenet_v2_checkpoint, photos_suite
    from jaxood.models.loading import load_model

    checkpoint = mobilenet_v2_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "mobilenet_v2.safetensors"
        convert_checkpoint(checkpoint, weights)
        model = load_model("mobilenet_v2", weights)
    graph, state = nnx.split(model.module)
    reference = import_torchvision("torchvision.models").mobilenet_v2()
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

    def ours(chunk):
        method = ScoreCAM(chunk=chunk)

        @jax.jit
        def attribute(state, image, target):
            return unit_scale(method(nnx.merge(graph, state), image, target, jax.random.key(0)))

        def run():
            pairs = zip(images, target, strict=True)
            maps = [attribute(state, image[None], own[None]) for image, own in pairs]
            return np.concatenate(jax.device_get(maps))

        return run

    def theirs():
        maps = []
        for image, own in zip(as_torch, target.tolist(), strict=True):
            size = args.torch_batch_size
            with (
                TorchScoreCAM(reference, "features.18", batch_size=size) as extractor,
                torch.inference_mode(),
            ):
                reference(image[None])
                maps.append(extractor(own)[0].numpy())
        return np.concatenate(maps)

    calls = {f"chunk {chunk}": ours(chunk) for chunk in args.chunks}
    calls["torchcam"] = theirs
    expected = theirs()
    errors = {name: float(np.abs(call() - expected).max()) for name, call in calls.items()}
    assert max(errors.values()) <= 1e-3, errors

    seconds = benchmarks.seconds_in_turn(calls, args.repeats)
    torchcam = seconds.pop("torchcam")
    return {
        "seconds_an_image": {name: own / args.images for name, own in seconds.items()},
        "torchcam_seconds_an_image": torchcam / args.images,
        "speed_over_torchcam": {name: torchcam / own for name, own in seconds.items()},
        "largest_difference": errors,
    }
