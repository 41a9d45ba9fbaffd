"""What each of several processes takes of image sets, and whether all of them see the same."""

from collections.abc import Iterable

import jax
import numpy as np

from jaxood.data.files import ImageFiles
from jaxood.data.images import ImageSet
from jaxood.data.relabelled import as_read
from jaxood.files import fingerprint
from jaxood.processes import require_agreed, share_of


def own_share(images: ImageSet) -> ImageSet | None:
    """The images that this process works through; None where there are fewer than processes."""
    if jax.process_count() == 1:
        return images
    share = share_of(len(images))
    return images.subset(np.arange(share.start, share.stop)) if len(share) else None


def require_same_images(sets: Iterable[ImageSet | None]) -> None:
    """Raises UsageError unless all processes see the same images, wherever they lie."""
    if jax.process_count() == 1:
        return
    for images in sets:
        if images is not None:
            require_agreed("images", _listing(images), f'other images in "{images.name}"')


def _listing(images: ImageSet) -> str:
    """Changes with names, labels and what is in the images; of files, with their sizes."""
    opened = as_read(images)
    content = opened.sizes if isinstance(opened, ImageFiles) else opened.fingerprint()
    labels = None if images.labels is None else images.labels.tolist()
    return fingerprint(len(images), content, labels)
