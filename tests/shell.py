"""The command line as a user meets it: a real process, its exit code, and what it leaves behind.

Servers are `crashlab.Served` sandboxes; what a harvest must leave is asked of their world.
"""

import atexit
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from crashlab import Forks, environment

from harvester.cli import main
from harvester.sandbox import Sandbox

OPENS = ("opens",)
_READ_AT_START = ("LANG", "LC_ALL", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "PATH")
_FORKS_ARE_FREE = threading.Lock()
SIX = ("opens", "clicks", "sends", "bounces", "forwards", "unsubscribes")


@contextmanager
def quick_disk(otherwise: Path) -> Iterator[Path]:
    """A directory in memory where there is such a thing: syncing costs nothing there."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else otherwise) as path:
        yield Path(path)


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def complaints(self) -> list[str]:
        """The lines on standard error."""
        return self.stderr.splitlines()


def command(*argv: object) -> list[str]:
    """The program, with every warning an error."""
    return [sys.executable, "-W", "error", "-m", "harvester", *map(str, argv)]


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """An environment with the sandbox's secrets, whose state stays under `home`."""
    return {**environment(), "HARVESTER_STATE_DIR": str(home / "state"), **more}


def harvester(
    home: Path,
    *argv: object,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes = b"",
    wrap: Sequence[str] = (),
) -> Done:
    """Run `harvester ARGV` in `home` and see it end: in a fork of a process that has imported the
    program, but where an interpreter of its own could make a difference, or two are to run at once.
    """
    stdin = stdin.encode() if isinstance(stdin, str) else stdin
    env = surroundings(home) if env is None else dict(env)
    alike = not wrap and all(env.get(name) == os.environ.get(name) for name in _READ_AT_START)
    if alike and _FORKS_ARE_FREE.acquire(blocking=False):
        try:
            return _in_a_fork(home, [*map(str, argv)], env, stdin)
        finally:
            _FORKS_ARE_FREE.release()
    done = subprocess.run(
        [*wrap, *command(*argv)],
        cwd=home,
        env=env,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=100,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@cache
def _forks() -> Forks:
    forks = Forks()
    atexit.register(forks.__exit__)
    return forks


def _in_a_fork(home: Path, argv: list[str], env: dict[str, str], stdin: bytes) -> Done:
    with TemporaryDirectory() as path:
        files = [Path(path, name) for name in ("stdin", "stdout", "stderr")]
        files[0].write_bytes(stdin)
        names = {file.name: str(file) for file in files}
        code = _forks().run(argv=argv, cwd=str(home), env=env, **names)
        return Done(code, *(file.read_bytes().decode() for file in files[1:]))


def called(
    home: Path,
    patch: pytest.MonkeyPatch,
    capture: pytest.CaptureFixture[str],
    *argv: object,
    env: Mapping[str, str] | None = None,
) -> Done:
    """The same in this process, for what ends before anything begins: a hundred times quicker."""
    with patch.context() as here:
        here.chdir(home)
        for name in [name for name in os.environ if name.startswith("HARVESTER_")]:
            here.delenv(name)
        for name, value in (surroundings(home) if env is None else env).items():
            here.setenv(name, value)
        capture.readouterr()
        code = main([*map(str, argv)])
    said = capture.readouterr()
    return Done(code, said.out, said.err)


def quick(home: Path, *argv: object) -> Done:
    """A whole run in this process, for what is only a step of a test: no interpreter is started."""
    raw = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(each, encoding="utf-8", write_through=True) for each in raw)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(home)
        for name, value in surroundings(home).items():
            patch.setenv(name, value)
        code = main([*map(str, argv)])
    return Done(code, *(each.getvalue().decode() for each in raw))


def without_secrets(home: Path) -> dict[str, str]:
    """The same environment without a secret."""
    secret = {"HARVESTER_API_KEY", "HARVESTER_ACCESS_TOKEN"}
    return {name: value for name, value in surroundings(home).items() if name not in secret}


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects in an NDJSON file; none if there is none."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def finals(out: Path, ending: str = ".ndjson") -> set[str]:
    """Every file with a final name."""
    return {str(path.relative_to(out)) for path in out.glob(f"*/*{ending}")}


def content(sandbox: Sandbox, report: str, campaign_id: str) -> bytes:
    """What a finished file holds, as the sandbox's world knows it."""
    return b"".join(row + b"\n" for row in sandbox.world.records(report, campaign_id))


def rows(data: bytes) -> Counter[bytes]:
    """The records of a file as a multiset."""
    return Counter(data.split(b"\n")[:-1])


def assert_harvested(
    out: Path, sandbox: Sandbox, ids: Iterable[str], reports: Sequence[str] = OPENS
) -> list[dict[str, Any]]:
    """Every file is there to the byte, no other one is, and the manifest agrees; its lines."""
    expected = {f"{report}/{each}.ndjson": (report, each) for each in ids for report in reports}
    assert finals(out) == set(expected)
    assert not [name for name in expected if (out / f"{name}.part").exists()]
    manifest = lines(out / "manifest.ndjson")
    assert len(manifest) == len(expected)
    for line in manifest:
        report, campaign_id = expected.pop(line["file"])
        data = (out / line["file"]).read_bytes()
        assert data == content(sandbox, report, campaign_id), line["file"]
        assert (line["report"], line["campaign_id"]) == (report, campaign_id)
        assert line["rows"] == data.count(b"\n")
        assert line["bytes"] == len(data)
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
    assert expected == {}
    return manifest


def summary_of(out: Path) -> dict[str, Any]:
    """summary.json, whose campaigns must add up."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_bytes())
    campaigns = found["campaigns"]
    parts = ("complete", "failed", "partial", "pending")
    assert campaigns["total"] == sum(campaigns[part] for part in parts)
    return found
