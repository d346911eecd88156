"""Jobs in fresh processes: `python -m tests.hub.child` reads them, one JSON line each, and forks for each.

The forked process has torch and homoreg, which take seconds to import, but has never imported
huggingface_hub: that reads HF_HOME, HF_ENDPOINT and the rest when it is first used, which is in the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2  # noqa: F401  the slowest part of huggingface_hub's imports; it reads none of its settings

from homoreg import Registrar, models
from homoreg.errors import HomoregError
from homoreg.models import HomographyModel
from homoreg.pins import PINS, Pin


def digest(model: HomographyModel) -> str:
    """Of all names and numbers of a network."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def load(**options: Any) -> dict[str, Any]:
    registrar = Registrar.from_pretrained(**options)
    return {
        "name": registrar.name,
        "folder": str(registrar.folder),
        "digest": digest(registrar.model),
        "trust": registrar.trust.as_dict(),
        "training": registrar.training,
    }


def create(**options: Any) -> str:
    return digest(models.create(**options))


def push(source: str, repository: str, **options: Any) -> str:
    return Registrar.from_pretrained(source).push_to_hub(repository, **options)


def pin(name: str, **values: Any) -> None:
    PINS[name] = Pin(**values)


def run_card(path: str, folder: str) -> str:
    """Run the Python of a model card in a folder with the two pictures it speaks of."""
    (code,) = re.findall(r"```python\n(.*?)```", Path(path).read_text(encoding="utf-8"), flags=re.DOTALL)
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, path, "exec"), {})
    return output.getvalue()


def command(*arguments: str) -> dict[str, Any]:
    """The command line, in this process."""
    from click.testing import CliRunner

    from homoreg.cli import main

    result = CliRunner().invoke(main, list(arguments))
    return {"code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr}


def is_loaded(module: str) -> bool:
    return module in sys.modules


def connect(host: str) -> None:
    with socket.socket() as one:
        one.settimeout(5)
        one.connect((host, 80))


OPERATIONS: dict[str, Callable[..., Any]] = {
    one.__name__: one for one in (load, create, push, pin, run_card, command, is_loaded, connect)
}


def perform(step: dict[str, Any], log: list[str]) -> dict[str, Any]:
    """Do one step and say how it went."""
    began = time.monotonic()
    log.clear()
    try:
        outcome = {"value": OPERATIONS[step["do"]](*step.get("with", ()), **step.get("options", {}))}
    except HomoregError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    except Exception:
        outcome = {"error": "a bug", "message": traceback.format_exc()}
    return outcome | {"seconds": time.monotonic() - began, "log": list(log)}


def obey_permissions() -> None:
    """Drop the superuser's right to write everywhere, so that a read-only folder is one for root, too."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~(1 << 1)  # CAP_DAC_OVERRIDE out of the effective set
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class _Notes(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append(f"{record.levelname}: {record.getMessage()}")


def work(job: dict[str, Any]) -> None:
    """All steps of a job, in the forked process."""
    assert "huggingface_hub" not in sys.modules
    for name in [name for name in os.environ if name.startswith("HF_")]:
        del os.environ[name]
    os.environ.update(job["env"])
    out = Path(job["out"])
    errors = os.open(out.with_suffix(".err"), os.O_CREAT | os.O_WRONLY)
    os.dup2(errors, 2)
    if job["obeys_permissions"]:
        obey_permissions()
    notes: list[str] = []
    logging.getLogger("homoreg").addHandler(_Notes(notes))
    outcomes = [perform(step, notes) for step in job["steps"]]
    out.with_suffix(".tmp").write_text(json.dumps(outcomes), encoding="utf-8")
    out.with_suffix(".tmp").rename(out)


def main() -> None:
    """Fork for every line of standard input."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: their files say how it went
    for line in sys.stdin:
        job = json.loads(line)
        if os.fork() == 0:
            code = 1
            try:
                work(job)
                code = 0
            except BaseException:
                failed = [{"error": "a bug", "message": traceback.format_exc()}]
                Path(job["out"]).write_text(json.dumps(failed), encoding="utf-8")
            finally:
                os._exit(code)


if __name__ == "__main__":
    main()
