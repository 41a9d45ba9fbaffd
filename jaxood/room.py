"""Memory and disk that are free: what takes much of them says so first, or is refused."""

import logging
import os
import shutil
from pathlib import Path

from jaxood.errors import UsageError


def free_memory() -> int:
    """Bytes of the machine's memory that can be taken, such as hold files only among them."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:  # another system
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def announce(argument: str, what: str, needed: int, free: int, where: str, remedy: str) -> None:
    """Says what is about to be taken, aloud when it is much.

    Raises:
      UsageError: when it is more than there is.
    """
    line = f"{what}, {needed / 1e9:.2f} GB {where}"
    if needed > free:
        wanted = f"at most the {free / 1e9:.2f} GB that are free there"
        raise UsageError(argument, line, wanted, remedy)
    level = logging.WARNING if needed > free / 4 else logging.INFO
    logging.getLogger("jaxood").log(level, "%s, of %.2f GB free", line, free / 1e9)
