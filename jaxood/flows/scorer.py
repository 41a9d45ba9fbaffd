"""A detector as one program that runs with jax alone, in a file that tells when it is damaged.

The first line holds the SHA-256 of all that follows it, which is what `jax.export` wrote:

  line, program = open("scorer.bin", "rb").read().split(b"\\n", 1)
  assert line.split()[-1].decode() == hashlib.sha256(program).hexdigest()
  scorer = jax.export.deserialize(bytearray(program))

That line comes first so that what would not check it does not run it.
"""

import hashlib
from pathlib import Path

from jax import export

from jaxood.errors import require
from jaxood.files import write_whole

FORMAT = b"jaxood scorer 1 sha256 "


def write_scorer(path: Path, program: export.Exported) -> None:
    """Writes the file, all of it or nothing."""
    content = bytes(program.serialize())
    write_whole(path, _line(content) + b"\n" + content)


def load_scorer(path: Path | str) -> export.Exported:
    """Reads what `ImageDetector.export` wrote.

    It is a program: load one only of people you trust.

    Returns:
      A program: `call(images)` takes uint8 images of the shape `in_avals[0].shape`, resized and
      cropped as the model wants, and gives a dict: "logits", "score" and "in_distribution", a row
      an image.

    Raises:
      UsageError: a file that is missing, or not as it was written.
    """
    path, remedy = Path(path), "Make one with jaxood fit --export"
    require(path.is_file(), "path", path, "an existing scorer file", remedy)
    line, _, program = path.read_bytes().partition(b"\n")
    require(line.startswith(FORMAT), "path", path, "an exported scorer", remedy)
    right = line == _line(program)
    require(right, "path", f"{path}, changed after it was written", "a whole file", remedy)
    return export.deserialize(bytearray(program))


def _line(program: bytes) -> bytes:
    return FORMAT + hashlib.sha256(program).hexdigest().encode()
