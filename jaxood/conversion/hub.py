"""Checkpoints of the Hugging Face Hub by name: `hf://owner/repo/file@revision`.

huggingface_hub fetches them and keeps them in its cache, as its settings have it: HF_ENDPOINT,
HF_HUB_OFFLINE, HF_HOME, HF_TOKEN. A name without a file is that of `model.safetensors`.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from jaxood.errors import UsageError

SCHEME = "hf://"
NAME = re.compile(r"hf://([^/@]+/[^/@]+)(?:/([^@]+))?(?:@([^@]+))?")
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
      repository: owner and name.
      file: path in it.
      revision: branch, tag or commit.
    """

    repository: str
    file: str
    revision: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}/{self.file}@{self.revision}"

    @property
    def published_name(self) -> str:
        """What the registry calls the file: in timm's repositories all have the same name."""
        owner, name = self.repository.split("/")
        return f"{name}/{self.file}" if owner == "timm" else PurePosixPath(self.file).name

    def beside(self, name: str) -> "HubFile":
        """A file of the same folder, of the same revision."""
        return replace(self, file=str(PurePosixPath(self.file).with_name(name)))


def parse_name(text: str) -> HubFile:
    """`hf://owner/repo/file@revision` in its parts; the file and the revision may be left out.

    Raises:
      UsageError: for another form.
    """
    found = NAME.fullmatch(text)
    if found is None:
        raise UsageError("checkpoint", text, f"{SCHEME}owner/repo/file or ...file@revision")
    repository, file, revision = found.groups()
    return HubFile(repository, file or WEIGHTS, revision or "main")


def fetch(wanted: HubFile) -> tuple[Path, HubFile]:
    """Fetches a file, where the cache does not have it.

    Returns:
      Where it lies; and the same file with the commit as its revision.

    Raises:
      UsageError: it is not there, or not to be had from here; with the address to fetch it from.
      OSError: it cannot be written.
    """
    hub = _huggingface_hub(wanted)
    try:
        found = hub.hf_hub_download(wanted.repository, wanted.file, revision=wanted.revision)
    except Exception as error:  # of HTTP, of the hub, and of what parses names
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk
        raise _refusal(wanted, error) from error
    folders = len(PurePosixPath(wanted.file).parts)
    return Path(found), replace(wanted, revision=Path(found).parts[-1 - folders])


def fetch_beside(fetched: HubFile, name: str) -> None:
    """Fetches a file of the same folder and commit, to lie beside it; there may be none.

    Raises:
      UsageError, OSError: as `fetch`.
    """
    hub, wanted = _huggingface_hub(fetched), fetched.beside(name)
    cached = hub.try_to_load_from_cache(wanted.repository, wanted.file, revision=wanted.revision)
    if cached is hub._CACHED_NO_EXIST:  # what can be known offline, too
        return
    try:
        fetch(wanted)
    except UsageError as error:
        if not _is_missing(error.__cause__):
            raise


def _huggingface_hub(wanted: HubFile):
    try:
        import huggingface_hub
    except ImportError as error:
        remedy = "Install it: pip install 'jaxood[hub]'"
        raise UsageError(
            "checkpoint", wanted, "huggingface_hub to fetch it with", remedy
        ) from error
    return huggingface_hub


def _is_missing(error: BaseException | None) -> bool:
    """Whether the hub said that there is no such file."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    return isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)


def _refusal(wanted: HubFile, error: Exception) -> UsageError:
    from huggingface_hub import constants, errors, hf_hub_url

    if isinstance(error, errors.HFValidationError):
        return UsageError("checkpoint", wanted, "a name of a repository that the hub could have")
    page = f"{constants.ENDPOINT}/{wanted.repository}"
    address = hf_hub_url(wanted.repository, wanted.file, revision=wanted.revision)
    look = f"See what there is: {page}"
    by_hand = f"Fetch {wanted.file} by hand, and name that file: {address}"
    if isinstance(error, errors.GatedRepoError):
        reason, remedy = "gated", f"Ask for access: {page}. {by_hand}"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason, remedy = "no such repository, or a private one", f"{look}. {by_hand}"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason, remedy = "no such revision", look
    elif _is_missing(error):
        reason, remedy = "no such file", look
    elif isinstance(error, errors.LocalEntryNotFoundError):
        offline = constants.HF_HUB_OFFLINE
        reason = "HF_HUB_OFFLINE is set" if offline else _first_line(error.__cause__ or error)
        reason, remedy = f"{reason}, and it is not in {constants.HF_HUB_CACHE}", by_hand
    else:
        reason, remedy = _first_line(error), by_hand
    return UsageError("checkpoint", f"{wanted} ({reason})", "a file that can be fetched", remedy)


def _first_line(error: BaseException) -> str:
    """What an error says first, and where it says nothing, its kind."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
