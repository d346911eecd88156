from __future__ import annotations

import builtins
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from homoreg.errors import OutputError
from homoreg.files import atomic_write_bytes, atomic_write_files, atomic_write_text, csv_text, make_folder
from tests.disk import FullDisk, everything_below


@pytest.mark.parametrize("sync", [True, False])
def test_writes_bytes_and_returns_the_path(tmp_path: Path, sync: bool) -> None:
    path = atomic_write_bytes(tmp_path / "a.bin", b"\x00\xff" * 1000, sync=sync)
    assert path == tmp_path / "a.bin"
    assert everything_below(tmp_path) == {"a.bin": b"\x00\xff" * 1000}


def test_accepts_a_string_path_and_any_buffer(tmp_path: Path) -> None:
    atomic_write_bytes(str(tmp_path / "a"), memoryview(bytearray(b"xyz")))
    assert (tmp_path / "a").read_bytes() == b"xyz"


def test_text_is_utf8_with_its_line_ends(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.txt", "Größe\r\n\n")
    assert (tmp_path / "a.txt").read_bytes() == "Größe\r\n\n".encode()


def test_rows_as_csv() -> None:
    rows: list[dict[str, object]] = [
        {"set": 'a "b", c', "n": 3, "mean": 1 / 3},
        {"n": 1234567, "set": "", "mean": float("inf")},
        {"n": "0.5000"},
    ]
    assert csv_text(("set", "n", "mean"), rows) == (
        'set,n,mean\n"a ""b"", c",3,0.333333\n,1234567,inf\n,0.5000,\n'
    )
    with pytest.raises(ValueError, match="max"):
        csv_text(("set",), [{"max": 1}])


def test_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a much longer old content")
    atomic_write_bytes(tmp_path / "a", b"new")
    assert everything_below(tmp_path) == {"a": b"new"}


def test_the_umask_decides_on_permissions(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        atomic_write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_very_long_name_still_has_room_for_the_temporary(tmp_path: Path) -> None:
    name = "n" * 250
    atomic_write_bytes(tmp_path / name, b"x")
    assert everything_below(tmp_path) == {name: b"x"}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere' does not exist; create it first"):
        atomic_write_bytes(tmp_path / "nowhere" / "a", b"x")


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match=r"a folder of that name is in the way; name another file"):
        atomic_write_bytes(tmp_path / "a", b"x")
    assert everything_below(tmp_path) == {"a": b"dir"}


def test_a_file_used_as_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OutputError, match=r"a' is not a folder; name a path inside a folder"):
        atomic_write_bytes(tmp_path / "a" / "b", b"x")


def test_a_null_byte_in_the_path_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="null byte"):
        atomic_write_bytes(f"{tmp_path}/a\0b", b"x")


def test_a_pipe_is_refused_and_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="it is a device or a pipe; name a regular file"):
        atomic_write_bytes(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    FullDisk(monkeypatch, room=5)
    with pytest.raises(OutputError, match=r"a': the disk is full; free some space or name another folder"):
        atomic_write_bytes(tmp_path / "a", b"longer than five")
    assert everything_below(tmp_path) == {"a": b"old"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")
def test_a_full_disk_as_the_kernel_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = builtins.open

    def on_full_device(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "x" in mode:
            Path(file).touch()
            return real_open("/dev/full", "wb")
        return real_open(file, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", on_full_device)
    with pytest.raises(OutputError, match="the disk is full"):
        atomic_write_bytes(tmp_path / "a", b"x", sync=False)
    assert everything_below(tmp_path) == {}


def test_a_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            atomic_write_bytes(tmp_path / "a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert everything_below(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission to write in"):
            atomic_write_bytes(tmp_path / "a", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_permission_denied_is_reported_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", deny)
    with pytest.raises(OutputError, match=r"no permission to write in .*; change its permissions"):
        atomic_write_bytes(tmp_path / "a", b"x")
    assert everything_below(tmp_path) == {}


def test_an_interrupt_leaves_nothing_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "a", b"x")
    assert everything_below(tmp_path) == {}


def test_an_output_error_is_an_os_error_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="does not exist") as caught:
        atomic_write_bytes(tmp_path / "nowhere" / "a", b"x")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_several_files_are_written(tmp_path: Path) -> None:
    atomic_write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert everything_below(tmp_path) == {"a": b"1", "b": b"2"}


def test_of_several_files_none_is_written_if_one_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    FullDisk(monkeypatch, room=5)
    with pytest.raises(OutputError, match=r"b': the disk is full"):
        atomic_write_files({tmp_path / "a": b"new", tmp_path / "b": b"does not fit"})
    assert everything_below(tmp_path) == {"a": b"old"}


def test_several_files_are_removed_if_a_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_replace = os.replace

    def fail_on_b(source: Path, target: Path) -> None:
        if target.name == "b":
            raise OSError(5, "Input/output error")
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_b)
    with pytest.raises(OutputError, match=r"b': Input/output error"):
        atomic_write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert everything_below(tmp_path) == {}


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_was_replaced_is_put_back_if_a_later_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = {"a": b"old", "b": b"older"}
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    real_replace = os.replace

    def fail_on_b(source: Path, target: Path) -> None:
        if target.name == "b" and source.suffix == ".tmp":
            raise error
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_b)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        atomic_write_files({tmp_path / "a": b"1", tmp_path / "new": b"2", tmp_path / "b": b"3"})
    assert everything_below(tmp_path) == before
    monkeypatch.undo()
    atomic_write_files({tmp_path / "a": b"1", tmp_path / "b": b"3"})
    assert everything_below(tmp_path) == {"a": b"1", "b": b"3"}


def test_several_files_are_replaced_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"old")
    atomic_write_files({tmp_path / "a": b"1", tmp_path / "b": b"3"})
    assert everything_below(tmp_path) == {"a": b"1", "b": b"3"}


def test_make_folder_creates_the_folders_above_and_accepts_an_existing_one(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert make_folder(str(tmp_path / "a" / "b")).is_dir()


def test_make_folder_names_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OutputError, match="a file of that name is in the way; name another folder"):
        make_folder(tmp_path / "a")
    with pytest.raises(OutputError, match=r"a' is not a folder"):
        make_folder(tmp_path / "a" / "b")
