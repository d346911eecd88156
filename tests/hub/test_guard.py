"""The proof that nothing in this suite leaves the machine: whatever tries is refused and fails its test."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.jobs import Processes, step

Attempts = Callable[[], list[str]]
ELSEWHERE = "192.0.2.1"  # reserved for documentation (RFC 5737): nobody is there


def test_this_process_stays(take_attempts: Attempts) -> None:
    with socket.socket() as one, pytest.raises(PermissionError, match=ELSEWHERE):
        one.connect((ELSEWHERE, 80))
    with socket.socket() as one, pytest.raises(PermissionError, match=ELSEWHERE):
        one.connect_ex((ELSEWHERE, 80))
    with socket.socket(type=socket.SOCK_DGRAM) as one, pytest.raises(PermissionError, match=ELSEWHERE):
        one.sendto(b"?", (ELSEWHERE, 53))
    for look_up in (socket.gethostbyname, lambda name: socket.getaddrinfo(name, 80)):
        with pytest.raises(PermissionError, match=r"example\.org"):
            look_up("example.org")
    assert len(take_attempts()) == 5


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


def test_every_python_process_of_the_suite_stays(take_attempts: Attempts) -> None:
    code = f"import socket; socket.create_connection(({ELSEWHERE!r}, 80), timeout=5)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "PermissionError" in result.stderr
    (attempt,) = take_attempts()
    assert ELSEWHERE in attempt


def test_the_real_client_stays(processes: Processes, take_attempts: Attempts) -> None:
    """Also where it would swallow the error, and where nothing tells it to use another endpoint."""
    connected, loaded = processes.run(
        step("connect", ELSEWHERE),
        step("load", name="ana/small"),
        endpoint="https://huggingface.co",
    )
    assert "PermissionError" in connected.message
    assert loaded.error == "HubError"
    attempts = take_attempts()
    assert any(ELSEWHERE in attempt for attempt in attempts)
    assert any("huggingface.co" in attempt for attempt in attempts)


def test_an_attempt_fails_the_test_that_made_it(tmp_path: Path, take_attempts: Attempts) -> None:
    suite = Path(__file__).parents[1]
    conftest = (suite / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest.replace("Path(__file__).parent", f"Path({str(suite)!r})"))
    (tmp_path / "test_it.py").write_text(
        "import contextlib, socket\n"
        "def test_that_hides_what_it_did():\n"
        "    with contextlib.suppress(OSError):\n"
        f"        socket.create_connection(({ELSEWHERE!r}, 80), timeout=5)\n"
        "def test_that_did_nothing():\n"
        "    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed, 1 error" in result.stdout
    assert "ERROR test_it.py::test_that_hides_what_it_did" in result.stdout
    assert "this test reached beyond loopback" in result.stdout
    assert not take_attempts()
