"""Image-classification sets that TensorFlow Datasets (TFDS) has prepared.

They are called `tfds:NAME:SPLIT` or `tfds:NAME/CONFIG:SPLIT`, and may have a version before the
split: `tfds:cifar10:3.0.2:test`. A split is TFDS's: `test`, `train[:10%]`, `train+test`. It may be
left out where a set has but one.

Sets lie in the folder $TFDS_DATA_DIR, else ~/tensorflow_datasets, and are never downloaded: some
have 150 GB. Their encoded images go through `jaxood.data.decode`, as files do; TensorFlow decodes
nothing.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import io
import os
import re
import zipfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from jaxood.data.decode import UndecodableImage, Whole, decode, decode_whole
from jaxood.data.files import class_numbers
from jaxood.data.images import Batch
from jaxood.data.pipeline import THREADS, decoded_batches
from jaxood.data.records import READERS, Records, Shard
from jaxood.errors import UsageError
from jaxood.files import cache_dir, printable, write_whole
from jaxood.preprocessing import Preprocessing

GRAMMAR = "tfds:NAME:SPLIT or tfds:NAME/CONFIG:SPLIT, with :VERSION before :SPLIT where it matters"
SOURCE = re.compile(
    r"tfds:(?P<builder>(?P<name>[A-Za-z]\w*)(?:/(?P<config>[\w+.-]+))?"
    r"(?::(?:\d+|\*)(?:\.(?:\d+|\*)){2})?)"
    r"(?::(?P<split>\w\S*))?"
)
BLOCK = 1000  # records whose labels a thread reads in one go
UNREAD = -2  # the label of a record that cannot be read; TFDS's -1 means that there is none


@dataclass(frozen=True, eq=False)
class TfdsImages:
    """Images of a split.

    Attributes:
      records: of the whole split, a serialised tf.train.Example each.
      indices: the record of each image.
      numbers: the class that each label of TFDS means; None where there are no labels.
      identity: of the records.
    """

    name: str
    records: Records
    indices: Int[np.ndarray, " n"]
    numbers: Int[np.ndarray, " k"] | None
    class_names: tuple[str, ...]
    labels_are_classes: bool
    identity: str

    @cached_property
    def ids(self) -> Sequence[str]:
        """As TFDS's `tfds_id`: the name of a file, and the position of the record in it."""
        found = (self.records.locate(index) for index in self.indices.tolist())
        return tuple(f"{os.path.basename(path)}__{position}" for path, position in found)

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"] | None:
        """Class indices, -1 for an image without one; None where no image has one.

        Every record is read for its label, once: labels are kept in the cache folder.
        """
        if self.numbers is None:
            return None
        path = cache_dir() / "tfds" / f"{self.fingerprint()}.npz"
        labels = _kept(path, len(self))
        if labels is None:
            labels = self._read_labels()
            if not (labels == UNREAD).any():
                content = io.BytesIO()
                np.savez(content, labels=labels)
                with contextlib.suppress(OSError):  # without a cache it takes longer, no more
                    write_whole(path, content.getvalue())
        known = (labels >= 0) & (labels < len(self.numbers))
        return np.where(known, self.numbers[labels * known], -1) if known.any() else None

    def __len__(self) -> int:
        return len(self.indices)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{Image.MAX_IMAGE_PIXELS}\n{self.identity}\n".encode())
        digest.update(np.ascontiguousarray(self.indices, np.int64).data)
        return digest.hexdigest()

    def subset(self, indices: Int[np.ndarray, " m"]) -> "TfdsImages":
        return replace(self, indices=self.indices[indices])

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, start: int = 0
    ) -> Generator[Batch, None, None]:
        def load(index: int):
            return decode(self._encoded(index), preprocessing)

        return decoded_batches(load, len(self), preprocessing.crop, batch_size, start)

    def whole(self, index: int, preprocessing: Preprocessing) -> Whole:
        return decode_whole(self._encoded(index), preprocessing)

    def _encoded(self, index: int) -> bytes:
        """The file of an image.

        Raises:
          UndecodableImage: when the record has no image.
        """
        images = self._features(int(self.indices[index]))["image"].bytes_list.value
        if len(images) != 1:
            raise UndecodableImage("the record has no image")
        return images[0]

    def _features(self, record: int) -> Any:
        """The values of an example by name; one that it lacks is empty.

        Raises:
          UndecodableImage: when the record cannot be read.
        """
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        content = self.records[record]
        try:
            return tf_example_pb2.Example.FromString(content).features.feature
        except DecodeError:
            raise UndecodableImage("the record is damaged") from None

    def _read_labels(self) -> Int[np.ndarray, " n"]:
        """As TFDS numbers the classes."""

        def labels_of(block: Int[np.ndarray, " b"]) -> list[int]:
            return [self._label(record) for record in block.tolist()]

        blocks = [self.indices[at : at + BLOCK] for at in range(0, len(self), BLOCK)]
        with ThreadPoolExecutor(THREADS) as threads:
            read = threads.map(labels_of, blocks)
            return np.array([label for labels in read for label in labels], np.int64)

    def _label(self, record: int) -> int:
        try:
            values = self._features(record)["label"].int64_list.value
        except UndecodableImage:
            return UNREAD
        return values[0] if len(values) == 1 else -1


def open_tfds(source: str, name: str | None = None, argument: str = "images") -> TfdsImages:
    """The set that a source names, as the top of this file tells.

    Args:
      name: for tables and files; default: NAME or NAME/CONFIG.
      argument: the parameter that an error names.

    Raises:
      UsageError: for a set that is not prepared, has no such split, or holds no images.
    """
    match = SOURCE.fullmatch(source)
    if not match:
        raise UsageError(argument, printable(source), GRAMMAR)
    info = _info(source, match, argument)
    shards, kind = _shards(source, info, match["split"], argument), info.file_format.value
    if kind not in READERS:
        raise UsageError(argument, f"{source}, prepared as {kind}", " or ".join(READERS))
    if kind == "array_record" and importlib.util.find_spec("array_record") is None:
        got, remedy = "no package that reads its files", "Install it: pip install array_record"
        raise UsageError(argument, f"{source}, and {got}", "array_record", remedy)
    numbers, class_names = _classes(source, info.features, argument)
    records = Records(shards, READERS[kind])
    return TfdsImages(
        name or "/".join(filter(None, (match["name"], match["config"]))),
        records,
        np.arange(len(records)),
        numbers,
        class_names,
        numbers is not None and not class_names,
        _identity(source, info.full_name, shards, argument),
    )


def data_folder() -> Path:
    """Where prepared sets lie."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _info(source: str, match: re.Match[str], argument: str) -> Any:
    """What TFDS tells of a set that it has prepared; none of the code that prepares it is run."""
    from tensorflow_datasets.core.read_only_builder import builder_from_files
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    folder = data_folder()
    try:
        return builder_from_files(match["builder"], data_dir=folder).info
    except DatasetNotFoundError:
        wanted = "a set that TFDS has prepared there, or in the folder that TFDS_DATA_DIR names"
        remedy = _remedy(match["builder"], match["name"], folder)
        got = f"{source}, which is not in {printable(folder)}"
        raise UsageError(argument, got, wanted, remedy) from None
    except Exception as error:  # a damaged description: errors of JSON, protobuf, KeyError...
        got = f"{source}, whose description cannot be read ({_first_line(error)})"
        raise UsageError(argument, got, "a set that TFDS has prepared") from None


def _remedy(builder: str, name: str, folder: Path) -> str:
    """What to do about a set that is not there."""
    import tensorflow_datasets as tfds

    there = [
        ":".join(str(path.parent.relative_to(folder)).rsplit("/", 1))
        for pattern in ("*/features.json", "*/*/features.json")
        for path in sorted((folder / name).glob(pattern))
    ]
    if there:
        return f"There is {printable(' and '.join(there))}"
    known = tfds.list_builders(with_community_datasets=False)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        return f"Did you mean {' or '.join(close)}?" if close else ""
    call = f"tfds.builder('{builder}').download_and_prepare(file_format='array_record')"
    program = f"import tensorflow_datasets as tfds; {call}"
    return f'Prepare it, with TensorFlow installed: python -c "{program}"'


def _shards(source: str, info: Any, split: str | None, argument: str) -> list[Shard]:
    """Which records of which files a split has."""
    splits = list(info.splits)
    wanted = f"a split: {', '.join(splits)}, a part ({splits[0]}[:10%]) or a sum of them"
    if split is None:
        if len(splits) != 1:
            raise UsageError(argument, f"{source} without a split", wanted)
        (split,) = splits
    try:
        parts, count = info.splits[split].file_instructions, info.splits[split].num_examples
    except Exception as error:  # ValueError and AssertionError among them
        got = f"{source} ({_first_line(error)})"
        raise UsageError(argument, got, wanted) from None
    if count < 1:
        raise UsageError(argument, f"{source} without an image in it", wanted)
    return [Shard(os.fspath(part.filename), part.skip, part.skip + part.take) for part in parts]


def _classes(
    source: str, features: Any, argument: str
) -> tuple[Int[np.ndarray, " k"] | None, tuple[str, ...]]:
    """The class that each label means, and the classes' names: see `class_numbers`."""
    import tensorflow_datasets as tfds

    names = sorted(features) if isinstance(features, tfds.features.FeaturesDict) else []
    if "image" not in names or not isinstance(features["image"], tfds.features.Image):
        got = f"{source}, which has {', '.join(names) or 'no features by name'}"
        raise UsageError(argument, got, "a set with a feature `image` that is an image")
    if features["image"].np_dtype == np.float32:
        raise UsageError(argument, f"{source}, whose pixels are floats", "pixels of 8 or 16 bits")
    label = features["label"] if "label" in names else None
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        return None, ()
    classes = [label.int2str(index) for index in range(label.num_classes)]
    numbers, class_names = class_numbers(classes)
    return np.array([numbers[name] for name in classes]), class_names


def _identity(source: str, full_name: str, shards: Sequence[Shard], argument: str) -> str:
    """Changes with the files; all of them must be there."""
    digest = hashlib.sha256(f"{full_name}\n".encode())
    for path, first, end in shards:
        name = os.path.basename(path)
        try:
            status = os.stat(path)
        except OSError as error:
            got = f"{source}, whose {name} cannot be read ({error.strerror})"
            raise UsageError(argument, got, "all of its files") from None
        told = f"{name}[{first}:{end}]\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(told.encode())
    return digest.hexdigest()


def _kept(path: Path, count: int) -> Int[np.ndarray, " n"] | None:
    """Labels that an earlier run has read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return labels if labels.shape == (count,) and labels.dtype == np.int64 else None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0]) if lines else type(error).__name__
