"""Jobs for fresh processes, and what to make of what they leave."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0  # seconds for a job, on a machine that has other things to do


def step(do: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """What a job is made of; see tests/hub/child.py."""
    return {"do": do, "with": arguments, "options": options}


@dataclass(frozen=True)
class Outcome:
    """How a step went."""

    value: Any = None
    error: str = ""
    message: str = ""
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)

    @property
    def good(self) -> Any:
        """The value; a failure is shown as it was."""
        assert not self.error, self.message
        return self.value


@dataclass(frozen=True)
class Job:
    """A process at work."""

    out: Path

    def outcomes(self) -> list[Outcome]:
        """Wait for the end."""
        deadline = time.monotonic() + PATIENCE
        while not self.out.exists():
            assert time.monotonic() < deadline, f"no answer; {self.stderr()}"
            time.sleep(0.02)
        return [Outcome(**values) for values in json.loads(self.out.read_text(encoding="utf-8"))]

    def stderr(self) -> str:
        """What the process wrote there."""
        return self.out.with_suffix(".err").read_text(encoding="utf-8")


class Processes:
    """Starts jobs, each in a process of its own with a fresh HF_HOME unless one is given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.child"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        steps: Sequence[dict[str, Any]],
        *,
        endpoint: str,
        home: Path | None = None,
        obeys_permissions: bool = False,
        **env: str,
    ) -> Job:
        """Begin; several jobs may run at once."""
        self.count += 1
        out = self.folder / f"job-{self.count}.json"
        env = {"HF_HOME": str(home or self.folder / f"home-{self.count}"), "HF_ENDPOINT": endpoint, **env}
        job = {"env": env, "steps": list(steps), "out": str(out), "obeys_permissions": obeys_permissions}
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(job) + "\n")
        self._parent.stdin.flush()
        return Job(out)

    def run(self, *steps: dict[str, Any], **options: Any) -> list[Outcome]:
        """Begin and wait."""
        return self.start(steps, **options).outcomes()

    def close(self) -> None:
        """No more jobs."""
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(timeout=PATIENCE)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def leftovers(home: Path) -> list[str]:
    """Whatever in a cache is neither complete nor part of its order; empty is as it should be."""
    found = []
    for path in sorted(home.rglob("*")):
        if not path.is_file() or path.suffix == ".lock" or path.name == "CACHEDIR.TAG":
            continue
        inside = path.relative_to(home).parts
        digest = path.name if len(path.name) == 64 else ""
        sound = "blobs" in inside or "snapshots" in inside or "refs" in inside or len(inside) == 1
        if not sound or "tmp" in path.name or path.suffix == ".incomplete":
            found.append(str(path))
        elif "blobs" in inside and digest and sha256(path.read_bytes()) != digest:
            found.append(f"{path} has other content")
    return found
