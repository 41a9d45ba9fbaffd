"""Where converted and trained weights are kept between runs."""

import os
from pathlib import Path


def cache_dir(chosen: Path | None = None) -> Path:
    """`chosen`, else $JAXOOD_CACHE, else $XDG_CACHE_HOME/jaxood, else ~/.cache/jaxood."""
    if chosen is not None:
        return Path(chosen)
    if os.environ.get("JAXOOD_CACHE"):
        return Path(os.environ["JAXOOD_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxood"
