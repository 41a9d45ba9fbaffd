"""JPEG files to uint8 batches, against torch's DataLoader with torchvision.

Also from what `--cache-images` has kept of them. Cores used are the seconds of CPU over those of
the clock: a pipeline that waits uses fewer.
"""

import argparse
import os
import tempfile
import time

import benchmarks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=310, help="photographs, repeated as needed")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="of the DataLoader")
    parser.add_argument("--repeats", type=int, default=5)


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    against = "torch DataLoader with torchvision, as many workers"
    faster = f"{figures['speed_over_torch']:.2f} x as fast, same bytes"
    return [("JPEG files to batches", against, faster)]


def run(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        return compare(args, folder)


def compare(args: argparse.Namespace, folder: str) -> dict:
    import numpy as np
    import torch
    from PIL import Image

    from jaxood.conversion.parity import import_publisher
    from jaxood.data.cached import cached_batches
    from jaxood.data.photos import photos_suite
    from jaxood.preprocessing import Preprocessing

    transforms = import_publisher("torchvision.transforms")
    preprocessing = Preprocessing(256, 224)
    photographs = photos_suite().id_test
    images = photographs.subset(np.resize(np.arange(len(photographs)), args.images))
    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            with Image.open(images.path(index)) as image:
                return torch.from_numpy(np.array(prepare(image.convert("RGB"))))

    loader = torch.utils.data.DataLoader(
        Files(), args.batch_size, num_workers=args.workers, persistent_workers=True
    )

    def ours():
        return [batch.images for batch in images.batches(preprocessing, args.batch_size)]

    def cached():
        batches = cached_batches(images, folder, preprocessing, args.batch_size)
        return [batch.images for batch in batches]

    def theirs():
        return [batch.numpy() for batch in loader]

    expected = np.concatenate(theirs())
    for found in (ours(), cached(), cached()):
        np.testing.assert_array_equal(np.concatenate(found)[: len(images)], expected)
    calls = {"jaxood": ours, "cached": cached, "torch": theirs}
    seconds = benchmarks.seconds_in_turn(calls, args.repeats)
    begun, busy = time.perf_counter(), time.process_time()
    ours()
    cores = (time.process_time() - busy) / (time.perf_counter() - begun)
    return {
        "cores_used": cores,
        "images_per_second": {name: len(images) / taken for name, taken in seconds.items()},
        "speed_over_torch": seconds["torch"] / seconds["jaxood"],
    }
