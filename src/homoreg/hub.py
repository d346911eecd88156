"""Models to and from the Hugging Face Hub. The only module that may import ``huggingface_hub``.

Only ``config.json`` and ``model.safetensors`` are ever asked for, by these names; nothing that a server says
becomes a file name unchecked, and what does not have the promised SHA-256 is deleted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from homoreg.errors import HomoregError, HubError, InputError, OutputError, UnknownNameError, WeightsError
from homoreg.pins import REQUIRED_FILES, find_mismatch

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Request", "checked_revision", "download", "push", "split_repository"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST = {"config.json": 2**20, "model.safetensors": 2**30}  # bytes; a stranger must not fill the disk
LOOK_UP_SECONDS = 8.0  # for the server to say what it has, unless HF_HUB_ETAG_TIMEOUT says otherwise
BUSY_SECONDS = 8.0  # for which a busy server is asked again
GONE_SECONDS = 2.0  # the same for one that cannot be reached
LONGEST_WAIT = 60.0  # the same for one that says when to come back
BUSY = (408, 429, 500, 502, 503, 504)

_FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"[\w-]{1,128}", re.ASCII)  # becomes a file name in the cache
_TOKEN = re.compile(r"[!-~]+")
_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"(?![^@]*(?:--|\.\.|\.git(?:@|$)))({_NAME}/{_NAME})(?:@(.+))?", re.ASCII)
_REVISION = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock$))[A-Za-z0-9_][\w.+/-]{0,249}(?<![/.])", re.ASCII)


@dataclass(frozen=True)
class Request:
    """A repository at a revision, and how to get it; see :func:`homoreg.pretrained.locate`."""

    repository: str = ""  # OWNER/NAME
    revision: str = "main"  # branch, tag or commit
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by file name; empty if not pinned
    cache_dir: Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"


def split_repository(text: str) -> tuple[str | None, str | None]:
    """Split ``OWNER/NAME[@REVISION]``; (None, None) for what cannot be a repository."""
    match = _REPOSITORY.fullmatch(text)
    return (None, None) if match is None else (match[1], match[2])


def checked_revision(revision: object) -> str:
    """Return the revision, or the main branch for None.

    Raises
    ------
    InputError
        If it cannot be the name of a branch, tag or commit; it becomes a path in the cache.
    """
    if revision is None:
        return "main"
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        raise InputError(f"revision is {revision!r}; expected a branch, a tag or a commit")
    return revision


def _check_token(token: object) -> None:
    """Refuse what cannot be sent, here: the client's error shows it, and it may be a token and a line end."""
    if not (token is None or isinstance(token, bool) or (isinstance(token, str) and _TOKEN.fullmatch(token))):
        raise InputError(
            "token is empty, holds a space, a line end or another character that no access token has, or is "
            "no text; pass the bare token, True for the one that is logged in, or False for none"
        )


def download(request: Request) -> Path:
    """Make sure that the cache has both files of a repository, and check them.

    Parameters
    ----------
    request
        What to get. Where its ``files`` are empty, what the server says of the weights is checked.

    Returns
    -------
    pathlib.Path
        Folder with ``config.json`` and ``model.safetensors``; its name is the full commit.

    Raises
    ------
    UnknownNameError, WeightsError, HubError, OutputError, InputError
        As :func:`homoreg.pretrained.locate` says.
    """
    from huggingface_hub import constants

    _check_token(request.token)
    offline = request.local_files_only or constants.is_offline_mode()
    if offline and request.force_download:
        raise InputError("force_download is set, but HF_HUB_OFFLINE forbids downloads; unset one of them")
    with _translated(request):
        if offline or (not request.force_download and _is_cached(request, request.revision)):
            folder = _download(request, offline=True)
        else:
            folder = _download_or_fall_back(request)
        _verify(folder, request.files)
    return folder


def _is_cached(request: Request, commit: str) -> bool:
    """Whether the cache has both files of a full commit; which commit a branch is at, it cannot know."""
    from huggingface_hub import try_to_load_from_cache

    def found(file: str) -> bool:
        place = try_to_load_from_cache(request.repository, file, cache_dir=request.cache_dir, revision=commit)
        return isinstance(place, str)

    return _FULL_COMMIT.fullmatch(commit) is not None and all(found(file) for file in REQUIRED_FILES)


def _download_or_fall_back(request: Request) -> Path:
    """Ask the server before anything is written; where it gives no answer, make do with the cache."""
    cached = _patiently(lambda: _look_up_both(request), lambda error: _fall_back(request, error))
    return cached or _patiently(lambda: _download(request, offline=False))


def _fall_back(request: Request, error: Exception) -> Path | None:
    """Snapshot folder in the cache, if there is one and the error does not say that it is wrong."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

    if request.force_download or isinstance(error, EntryNotFoundError | RevisionNotFoundError):
        return None
    try:
        folder = _download(request, offline=True)
    except LocalEntryNotFoundError:
        return None
    logger.warning("the Hub did not give %s (%s): using the cached copy", request, _first_line(error))
    return folder


def _look_up_both(request: Request) -> None:
    """Check what the server has; the second file only where it is not in the cache."""
    commit = _look_up(request, REQUIRED_FILES[0])
    if request.force_download or not _is_cached(request, commit):
        _look_up(request, REQUIRED_FILES[1])


def _look_up(request: Request, file: str) -> str:
    """Ask for a file's commit, tag and size, and refuse what could do harm."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    own = "HF_HUB_ETAG_TIMEOUT" in os.environ
    metadata = get_hf_file_metadata(
        hf_hub_url(request.repository, file, revision=request.revision),
        token=request.token,
        timeout=constants.HF_HUB_ETAG_TIMEOUT if own else LOOK_UP_SECONDS,
        library_name="homoreg",
        library_version=_version(),
    )
    commit, etag, size = metadata.commit_hash or "", metadata.etag or "", metadata.size or 0
    substituted = _FULL_COMMIT.fullmatch(request.revision) and commit != request.revision
    if not _FULL_COMMIT.fullmatch(commit) or not _ETAG.fullmatch(etag) or substituted:
        raise HubError(
            f"the server answered the request for {file} of {request} with commit {commit!r} and tag "
            f"{etag!r}; expected those of the Hub: check HF_ENDPOINT and any proxy"
        )
    if size > LARGEST[file]:
        raise WeightsError(f"{file} of {request} has {size} bytes; expected at most {LARGEST[file]}")
    return commit


def _download(request: Request, *, offline: bool) -> Path:
    """Snapshot folder with both files, of one commit even if the branch moves meanwhile."""
    from huggingface_hub import hf_hub_download

    revision = request.revision
    for file in REQUIRED_FILES:
        path = hf_hub_download(
            request.repository,
            file,
            revision=revision,
            cache_dir=request.cache_dir,
            token=request.token,
            force_download=request.force_download,
            local_files_only=offline,
            etag_timeout=LOOK_UP_SECONDS,
            library_name="homoreg",
            library_version=_version(),
        )
        revision = Path(path).parent.name
    return Path(path).parent


def _patiently(call: Callable[[], T], otherwise: Callable[[Exception], T | None] = lambda _: None) -> T:
    """Call; after a failure take the other way, or call again while the server is merely busy."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    began, pause = time.monotonic(), 0.5
    while True:
        try:
            return call()
        except HTTPError as error:
            if (other := otherwise(error)) is not None:
                return other
            response = error.response if isinstance(error, HfHubHTTPError) else None
            if response is not None and response.status_code not in BUSY:
                raise
            asked = response.headers.get("retry-after", "") if response is not None else ""
            wait = float(asked) + 0.1 if asked.isdigit() else pause
            patience = (
                LONGEST_WAIT if asked.isdigit() else BUSY_SECONDS if response is not None else GONE_SECONDS
            )
            if time.monotonic() + wait > began + patience:
                raise
            logger.info("the Hub is busy (%s): asking again in %g s", _first_line(error), wait)
        time.sleep(wait)
        pause *= 2


def _verify(folder: Path, pinned: Mapping[str, str]) -> None:
    """Compare the files with their pins, or with what the server said; delete what does not match."""
    digests = {file: pinned.get(file) or _digest_in_cache(folder / file) for file in REQUIRED_FILES}
    expected = {file: digest for file, digest in digests.items() if digest}
    if mismatch := find_mismatch(folder, expected):
        path, found = mismatch
        gone = _delete_from_cache(path)
        raise WeightsError(
            f"{path} has SHA-256 {found}; expected {expected[path.name]}: it is not the file it claims to be "
            f"and {'was deleted' if gone else 'could not be deleted'}; fetch it again, and report this if it "
            "stays so"
        )


def _digest_in_cache(path: Path) -> str | None:
    """SHA-256 that the server gave for a file: the cache names large files after it."""
    blob = os.path.basename(os.path.realpath(path))
    return blob if _SHA256.fullmatch(blob) else None


def _delete_from_cache(path: Path) -> bool:
    """Delete a file of a snapshot with all that it links to inside the cache; report whether it is gone."""
    cache = path.absolute().parents[3]
    with contextlib.suppress(OSError):
        while path.is_symlink():
            target = Path(os.path.normpath(path.parent / os.readlink(path)))
            path.unlink(missing_ok=True)
            if not target.is_relative_to(cache):
                return True
            path = target
        path.unlink(missing_ok=True)
    return not path.exists()


def push(
    files: Mapping[str, bytes],
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    message: str = "Upload a homoreg model",
) -> str:
    """Upload files in one commit; make repository and branch if they do not exist.

    Parameters
    ----------
    files
        What goes up, by name. Other files of the repository stay.
    repository
        ``OWNER/NAME``.
    private
        Whether a repository made for this is private; by default what the owner's settings say.
    revision
        Branch; the main branch by default.
    token
        Access token that may write; by default the one that is logged in.
    message
        Of the commit.

    Returns
    -------
    str
        Full commit.

    Raises
    ------
    HubError
        If the Hub cannot be reached or refuses.
    InputError
        If repository or revision cannot be a name, or the token none.
    """
    if split_repository(str(repository)) != (repository, None):
        raise InputError(f"repository is {repository!r}; expected OWNER/NAME, such as 'ana/thermal-m'")
    branch = checked_revision(revision)
    _check_token(token)
    with _translated(Request(repository, branch, token=token)):
        from huggingface_hub import CommitOperationAdd

        api = _api(token)
        api.create_repo(repository, private=private, exist_ok=True)
        if branch != "main":
            api.create_branch(repository, branch=branch, exist_ok=True)
        operations = [CommitOperationAdd(name, data) for name, data in sorted(files.items())]
        done = api.create_commit(repository, operations, commit_message=message, revision=branch)
    return done.oid


def _api(token: str | bool | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="homoreg", library_version=_version())


def _version() -> str:
    from homoreg import __version__

    return __version__


@contextlib.contextmanager
def _translated(request: Request) -> Iterator[None]:
    """Turn whatever the client raises into one error that says what to do."""
    try:
        yield
    except HomoregError:
        raise
    except Exception as error:  # the client's errors have no common base
        raise _explained(error, request) from error


def _explained(error: Exception, request: Request) -> HomoregError:
    from huggingface_hub import constants, errors

    where = f"{constants.ENDPOINT}/{request.repository}"
    login = "pass token=..., or log in with `hf auth login`"
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{request.repository} is gated; accept its conditions at {where}, then {login}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnknownNameError(
            f"there is no folder and no repository {request.repository!r} that you may see at "
            f"{constants.ENDPOINT}; check the name, or if it is private, {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownNameError(f"{request.repository} has no revision {request.revision!r}; see {where}")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return WeightsError(
            f"{request} does not have both config.json and model.safetensors; homoreg reads safetensors "
            "only and never pickles (.bin, .pt): ask its owner to add them"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError(f"HF_HUB_OFFLINE forbids the network, which {request} needs; unset it")
    if isinstance(error, errors.LocalTokenNotFoundError):
        return HubError(f"token is True, but nobody is logged in; {login}")
    if isinstance(error, errors.LocalEntryNotFoundError):
        if request.local_files_only or constants.is_offline_mode():
            return HubError(
                f"{request} is not in the cache, and local_files_only or HF_HUB_OFFLINE forbids the network; "
                "allow it once, or pass the cache_dir that has it"
            )
        return HubError(
            f"{request} could not be fetched from {constants.ENDPOINT} ({_root(error)}); try again"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _explained_status(error.response.status_code, request, login)
    if isinstance(error, OSError) and error.errno is not None:
        place = request.cache_dir or constants.HF_HUB_CACHE
        return OutputError(
            f"cannot write the cache in {str(place)!r} ({error.strerror}); pass another cache_dir, or set "
            "HF_HOME"
        )
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        return HubError(
            f"{constants.ENDPOINT} cannot be reached or broke off ({_root(error)}), and {request} is not in "
            "the cache; check the network and HF_ENDPOINT, or pass a folder"
        )
    return HubError(f"{request} did not come over whole ({_root(error)}); try again, or check HF_ENDPOINT")


def _explained_status(status: int, request: Request, login: str) -> HubError:
    if status in (401, 403):
        return HubError(f"access to {request} was refused (status {status}); {login}")
    if status == 429:
        return HubError(f"the Hub limits how often you may ask for {request} (status 429); wait, or {login}")
    return HubError(f"the Hub answered the request for {request} with status {status}; try again later")


def _root(error: BaseException) -> str:
    """Type and first line of the error that began it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_line(error)}".rstrip(": ")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
