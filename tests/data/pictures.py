"""Pictures to write to files."""

import io

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(width * height)
    coarse = generator.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
