"""Says for each image whether it is in distribution."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxood.files import write_whole
from jaxood.flows.detector import ImageDetector, Verdict
from jaxood.runner.batch_size import DEFAULT, BatchSize
from jaxood.runner.features import Skipped

COLUMNS = ("image", "class", "name", "probability", "score", "verdict")


def record(verdict: Verdict) -> dict[str, object]:
    """A verdict as files and terminals have it, by `COLUMNS`."""
    known = "ID" if verdict.in_distribution else "OOD"
    values = (verdict.id, verdict.label, verdict.class_name, verdict.probability, verdict.score)
    return dict(zip(COLUMNS, (*values, known), strict=True))


@dataclass(frozen=True)
class DetectionResult:
    """What `detect` found.

    Attributes:
      verdicts: of the images that could be decoded, in order.
      skipped: the others.
    """

    detector: ImageDetector = field(repr=False)
    verdicts: tuple[Verdict, ...]
    skipped: tuple[Skipped, ...]

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __str__(self) -> str:
        known = sum(verdict.in_distribution for verdict in self.verdicts)
        return summary(self.detector, known, len(self.verdicts) - known, len(self.skipped))

    def save(self, folder: Path | str) -> Path:
        """Writes verdicts.csv and verdicts.json."""
        folder = Path(folder)
        rows = [record(verdict) for verdict in self.verdicts]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(folder / "verdicts.csv", text.getvalue().encode())
        about = {"verdicts": rows, "skipped": {image.id: image.reason for image in self.skipped}}
        content = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        write_whole(folder / "verdicts.json", content.encode())
        return folder


def summary(detector: ImageDetector, known: int, foreign: int, skipped: int) -> str:
    """One line of counts."""
    return (
        f"{known} in distribution, {foreign} not, {skipped} left out; "
        f"{detector.fitted.method.name}, threshold {detector.threshold:.6g} "
        f"({detector.fitted.tpr:.4g} of in-distribution images reach it)"
    )


def detect(
    detector: ImageDetector, images: Any, *, batch_size: BatchSize = DEFAULT
) -> DetectionResult:
    """All verdicts at once; `detector.detect(images)` gives them as batches finish.

    Args:
      detector: from `jaxood.fit` or `jaxood.load_detector`.
      images: paths, folders, lists, PIL images, uint8 arrays of any size, or an image set.

    Raises:
      UsageError: for images that are not there.
    """
    skipped: list[Skipped] = []
    verdicts = tuple(detector.detect(images, batch_size=batch_size, on_skipped=skipped.append))
    return DetectionResult(detector, verdicts, tuple(skipped))
