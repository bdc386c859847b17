"""What a run imports: nothing that it does not use."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashlab import Served, environment, ids_of, small

_PROGRAM = (
    "import json, sys\n"
    "from harvester.cli import main\n"
    "code = main(sys.argv[1:])\n"
    "print(json.dumps([code, sorted(sys.modules)]))\n"
)
_NEVER = (
    "gzip",
    "jinja2",
    "rich",
    "harvester.sandbox",
    "harvester.diagnosis",
    "harvester.device_flow",
    "harvester.reporting.page",
    "harvester.api.v3",
    "harvester.campaign.topup",
)
_UNASKED = {
    "tomllib": ("--config", "settings.toml"),
    "aiolimiter": ("--rate", "400"),
    "harvester.campaign.reconcile": ("--summary",),
    "harvester.request.token_command": ("--token-command", "echo sandbox-token"),
}
_SIGN_IN = (
    "harvester.api.oauth",
    "harvester.disk.token_store",
    "harvester.request.token_endpoint",
    "harvester.request.token_keeper",
)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A small account."""
    with Served(small()) as one:
        yield one


def imported(served: Served, folder: Path, *options: str) -> set[str]:
    """Every module that a run in a fresh interpreter has imported in the end."""
    argv = ["run", "-q", "-o", "out", "--state-dir", "state", "--base-url", served.sandbox.base_url]
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *argv, "--rate", "0", *options, *ids_of(served.sandbox)],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    code, modules = json.loads(ended.stdout)
    assert code == 0, ended.stderr
    return set(modules)


def test_a_run_imports_only_what_it_uses(served: Served, tmp_path: Path) -> None:
    """No terminal library without a terminal, no compressor, no sign-in where a token is given."""
    modules = imported(served, tmp_path)
    assert not modules & {*_NEVER, *_UNASKED, *_SIGN_IN}
    assert {"harvester.campaign.walk", "harvester.api.v2"} <= modules


@pytest.mark.parametrize("module", _UNASKED)
def test_what_is_asked_for_is_imported(served: Served, tmp_path: Path, module: str) -> None:
    """Each of these works when a setting asks for it."""
    (tmp_path / "settings.toml").write_text("retries = 3\n")
    assert module in imported(served, tmp_path, *_UNASKED[module])
