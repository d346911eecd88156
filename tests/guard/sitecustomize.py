"""Keeps the test suite on this machine: refuses, and writes down, every look beyond loopback.

tests/conftest.py puts this folder on PYTHONPATH, so that every Python process of the suite imports this file
at its start. An audit hook cannot be taken out again, and code that swallows the error is still written down.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LOG = "HOMOREG_TEST_NETWORK_LOG"
_NAMES = {"", "localhost", "::1", "::", "0.0.0.0", os.uname().nodename}
_CONNECTS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}


def stays_here(host: object) -> bool:
    """Whether a host is this machine."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    return text is None or (isinstance(text, str) and (text in _NAMES or text.startswith("127.")))


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook."""
    if event in _CONNECTS:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else None  # else a Unix or other socket
    elif event in _LOOK_UPS:
        host = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
    else:
        return
    if stays_here(host):
        return
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as log:
            log.write(f"{event} {host} (process {os.getpid()})\n")
    raise PermissionError(f"a test tried to reach {host}; the test suite stays on this machine")


sys.addaudithook(refuse)
