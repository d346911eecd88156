"""Writing files so that they are either complete or absent.

A file is written under a temporary name in its own folder and renamed over the target. Renaming within a
folder is atomic, so a reader sees the old file or the new one and never half of one, whatever instant the
process dies at.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from homoreg.errors import OutputError

__all__ = ["atomic_write_bytes", "atomic_write_files", "atomic_write_text", "csv_text", "make_folder"]

Buffer = bytes | bytearray | memoryview


def atomic_write_bytes(path: str | os.PathLike[str], data: Buffer, *, sync: bool = True) -> Path:
    """Write `data` to `path` in one step, replacing what is there.

    Parameters
    ----------
    path
        The file to write. Its folder must exist (`make_folder` creates one). A symbolic link is followed.
    data
        Everything the file shall hold.
    sync
        Whether to wait until the disk holds the data, so that not even a power cut can leave an empty file.
        False is for writers of thousands of files that can be made again.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written (no such folder, no permission, disk full...). Nothing new is left
        behind and a file that was at `path` before is unchanged.
    """
    target = Path(path)
    atomic_write_files({target: data}, sync=sync)
    return target


def atomic_write_text(path: str | os.PathLike[str], text: str, *, sync: bool = True) -> Path:
    """Write `text` to `path` as UTF-8, line ends as they are; otherwise as `atomic_write_bytes`."""
    return atomic_write_bytes(path, text.encode("utf-8"), sync=sync)


def atomic_write_files(files: Mapping[Path, Buffer], *, sync: bool = True) -> None:
    """Write several files, all or none.

    All data reaches the disk under temporary names before the first rename, so a disk that is too small for
    the set leaves every target as it was. So does a rename that fails, or an interrupt between two: what was
    replaced is put back, from hard links where the file system has them. Only a process that is killed
    between two renames leaves new files beside old ones.

    Parameters
    ----------
    files
        The data by the path it goes to.
    sync
        As in `atomic_write_bytes`.

    Raises
    ------
    OutputError
        If any of them cannot be written; then none of them is.
    """
    pending: list[tuple[Path, Path]] = []
    kept: dict[Path, Path] = {}
    done: list[Path] = []
    try:
        for path, data in files.items():
            target = _target(path)
            # The random part keeps two writers of one target apart; the dot hides what a SIGKILL leaves.
            temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            pending.append((temporary, target))
            with _reporting(path):
                _write(temporary, data, sync)
        for temporary, target in pending if len(pending) > 1 else ():
            backup = temporary.with_suffix(".old")
            with contextlib.suppress(OSError):  # there is none to keep, or no hard link
                os.link(target, backup)
                kept[target] = backup
        for temporary, target in pending:
            with _reporting(target):
                os.replace(temporary, target)
            done.append(target)
    except BaseException:  # a KeyboardInterrupt, too, must leave nothing behind
        for target, backup in kept.items():
            with contextlib.suppress(OSError):
                os.replace(backup, target)
        for target in done:
            if target not in kept:
                with contextlib.suppress(OSError):
                    target.unlink()
        raise
    finally:
        for leftover in (*(temporary for temporary, _ in pending), *kept.values()):
            with contextlib.suppress(OSError):
                leftover.unlink()


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as CSV with a header: what a row lacks stays empty, and floats keep six significant digits.

    Raises
    ------
    ValueError
        If a row holds what is no column.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder `path`, with the folders above it, unless it is there.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    OutputError
        If it cannot be created, or a file is in the way.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(
            f"cannot create the folder {str(folder)!r}: a file of that name is in the way; "
            "name another folder or remove the file"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise OutputError(f"cannot create the folder {str(folder)!r}: {_reason(error, folder)}") from error
    return folder


def _target(path: Path) -> Path:
    """Where to rename to: the end of the link, if it is one; refuse what a rename would destroy or miss."""
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        # Renaming over /dev/null or a pipe would replace the device by a file.
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "it is a device or a pipe; name a regular file")
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {str(path)!r}: {_reason(error, path)}") from error
    return target


def _write(temporary: Path, data: Buffer, sync: bool) -> None:
    # open() rather than tempfile: the file gets the permissions the user's umask asks for, not 0600.
    with open(temporary, "xb") as stream:
        stream.write(data)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {_reason(error, path)}") from error


def _reason(error: Exception, target: Path) -> str:
    """What went wrong and what to do about it, in words."""
    code = error.errno if isinstance(error, OSError) else None
    folder = str(target.parent)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or name another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write in {folder!r}; change its permissions or name another folder"
    if code == errno.ENOENT:
        return f"the folder {folder!r} does not exist; create it first"
    if code == errno.ENOTDIR:
        return f"{folder!r} is not a folder; name a path inside a folder"
    if code == errno.EISDIR:
        return "a folder of that name is in the way; name another file"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
