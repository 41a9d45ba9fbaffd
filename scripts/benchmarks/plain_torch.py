"""A plain torch script that the end-to-end benchmark runs: energies of folders, into one file."""

import argparse
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arch")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--schemas", action="store_true", help="for torchvision on a CPU's torch")
    args = parser.parse_args()

    import numpy as np
    import torch
    from PIL import Image

    if args.schemas:  # see `jaxood.conversion.parity.import_publisher`
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models, transforms

    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    class Files(torch.utils.data.Dataset):
        def __init__(self, folder):
            self.paths = sorted(folder.iterdir())

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            with Image.open(self.paths[index]) as image:
                return prepare(image.convert("RGB"))

    network = models.get_model(args.arch)
    network.load_state_dict(torch.load(args.checkpoint, weights_only=True))
    network = network.eval().to(memory_format=torch.channels_last)
    scores = {}
    with torch.inference_mode():
        for folder in args.folders:
            loader = torch.utils.data.DataLoader(
                Files(folder), args.batch_size, num_workers=args.workers
            )
            energies = [
                torch.logsumexp(network(batch.to(memory_format=torch.channels_last)), 1)
                for batch in loader
            ]
            scores[folder.name] = torch.cat(energies).numpy()
    np.savez(args.output, **scores)


if __name__ == "__main__":
    main()
