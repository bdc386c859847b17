"""A bench for killing harvests: a sandbox to harvest, and a child that harvests it and dies.

`Lab` puts both together; `Reference` knows what the files must be, from the sandbox's world and
not from any run. Waiting is for a thing to happen, with a bound, never for a time to pass.
"""

import asyncio
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from harvester import HarvestConfig
from harvester.disk import inspect as inspection
from harvester.disk.layout import Layout
from harvester.request.quota_record import newest
from harvester.sandbox import Hit, Sandbox, SandboxSettings

T = TypeVar("T")
ROWS = 5
SECRETS = {"HARVESTER_API_KEY": "sandbox-key", "HARVESTER_ACCESS_TOKEN": "sandbox-token"}
_CHILD = Path(__file__).with_name("crash_child.py")


def until(happens: Callable[[], T], *, within: float = 30.0) -> T:
    """Wait until `happens()` is true, and give what it said. TimeoutError if it never is."""
    deadline = time.monotonic() + within
    while not (found := happens()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {within:g} s")
        time.sleep(0.005)
    return found


def environment() -> dict[str, str]:
    """This process's, without settings of a user's, with the sandbox's secrets."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HARVESTER_")}
    return {**own, **SECRETS, "PYTHONDONTWRITEBYTECODE": "1"}


def charged(ledger: Path) -> dict[str, int]:
    """The requests in a ledger by day. A day that has none yet takes what a cut record may hold."""
    account, _ = newest(ledger.read_bytes(), "")
    assert account is not None
    return account.days


def settings_of(sandbox: Sandbox, home: Path, **more: Any) -> dict[str, Any]:
    """A harvest of the sandbox into `home`, in pages of its own size and as fast as it goes; ready
    for JSON."""
    return {
        "output": str(home / "out"),
        "state_dir": str(home / "state"),
        "base_url": sandbox.base_url,
        "api_key": sandbox.settings.api_key,
        "access_token": sandbox.settings.access_token,
        "page_size": sandbox.settings.rows_per_page,
        "rate": 0,
        **more,
    }


def config_of(sandbox: Sandbox, home: Path, **more: Any) -> HarvestConfig:
    """The same as a config."""
    return HarvestConfig(**settings_of(sandbox, home, **more))


class Served:
    """A sandbox that serves from a thread of its own; used from any other thread."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Served":
        self._thread.start()
        self._do(self.sandbox.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self.sandbox.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def hits(self) -> list[Hit]:
        """Every request that was sent, also those whose sender is dead by now."""
        self._do(_turns(20))
        return list(self.sandbox.log)

    def pages(self) -> list[tuple[str, int]]:
        """Campaign and page of every request."""
        return [(hit.campaign_id, hit.page) for hit in self.hits()]


async def _turns(count: int) -> None:
    """Let the loop look at its sockets so many times: what has arrived is read and logged."""
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Reference:
    """What a harvest of `ids` must leave behind."""

    files: dict[str, bytes]
    """Finished files by their name in the directory."""
    rows: dict[str, int]
    pages: dict[str, int]
    """Pages of each file."""
    details: int = 0
    """Requests for the campaigns themselves (v3)."""

    @property
    def requests(self) -> int:
        """The least there can be."""
        return sum(self.pages.values()) + self.details

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}

    def packed(self, files: dict[str, bytes]) -> "Reference":
        """The same harvest with the files of a compressed run, whose content must be the same."""
        opened = {name: _unpacked(name, data) for name, data in files.items()}
        endings = {plain: name for name in files for plain in self.files if name.startswith(plain)}
        assert {plain: opened[name] for plain, name in endings.items()} == self.files
        return Reference(
            files,
            {endings[plain]: count for plain, count in self.rows.items()},
            {endings[plain]: count for plain, count in self.pages.items()},
            self.details,
        )


def _unpacked(name: str, data: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.decompress(data))


def reference(sandbox: Sandbox, ids: Sequence[str], limit: int = ROWS) -> Reference:
    """What the sandbox's own world says, of ids of either version."""
    world, report = sandbox.world, "opens"
    names = {campaign_id: f"{report}/{campaign_id}.ndjson" for campaign_id in ids}
    return Reference(
        {
            name: b"".join(row + b"\n" for row in world.records(report, campaign_id))
            for campaign_id, name in names.items()
        },
        {name: world.rows(report, campaign_id) for campaign_id, name in names.items()},
        {name: world.pages(report, campaign_id, limit) for campaign_id, name in names.items()},
        len(ids) if "-" in ids[0] else 0,
    )


def small(**settings: Any) -> Sandbox:
    """Three campaigns of four pages, two and one; and one without a record."""
    asked = {"campaigns": 3, "pages": 6, "rows_per_page": ROWS, "unsent": 1, **settings}
    sandbox = Sandbox(SandboxSettings(**asked))
    world = sandbox.world
    second = min(world.campaign_ids, key=lambda each: -world.pages("opens", each, ROWS) % 4)
    others = [each for each in world.campaign_ids if each != second]
    world.add_events("opens", others[0], ROWS)
    return sandbox


def ids_of(sandbox: Sandbox, api: str = "v2") -> list[str]:
    """The campaigns of a small world; v3 has no files of those that were not sent."""
    if api == "v3":
        return list(sandbox.world.v3_campaign_ids)
    return [*sandbox.world.campaign_ids, *sandbox.world.unsent_ids]


@dataclass(frozen=True)
class Ended:
    """How a run ended: `code` is its exit code, or minus the signal that killed it."""

    code: int
    stderr: str
    stdout: str = ""

    @property
    def killed(self) -> bool:
        """Whether it did not come to an end of its own."""
        return self.code in {-signal.SIGKILL, -signal.SIGALRM, -signal.SIGXFSZ}


@dataclass
class Home:
    """An output directory with a state folder beside it."""

    path: Path

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def out(self) -> Path:
        """`--output`."""
        return self.path / "out"

    @property
    def state(self) -> Path:
        """`--state-dir`."""
        return self.path / "state"

    @property
    def log(self) -> Path:
        """Standard error of the runs."""
        return self.path / "stderr"

    def copy(self, path: Path) -> "Home":
        """The same, elsewhere."""
        shutil.copytree(self.path, path)
        return Home(path)

    def remove(self) -> None:
        """Free the space."""
        shutil.rmtree(self.path)

    def finals(self) -> dict[str, bytes]:
        """The files with a final name."""
        return {
            f"{path.parent.name}/{path.name}": path.read_bytes()
            for path in self.out.glob("opens/*")
            if path.suffix != ".part"
        }

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A report's lines."""
        path = self.out / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def whole_lines(self, name: str) -> list[dict[str, Any]]:
        """A report's lines, but for what a failed write has left at its end."""
        path = self.out / name
        data = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def summary(self) -> dict[str, Any]:
        """summary.json."""
        found: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return found

    def charged(self) -> int:
        """The requests in the ledger, of all days."""
        return sum(sum(charged(path).values()) for path in self.state.glob("*.json"))

    def assert_no_half_file(self, expected: Reference) -> None:
        """Every file with a final name is finished, to the byte."""
        for name, data in self.finals().items():
            assert data == expected.files.get(name), f"{name} has a final name and is not final"

    def assert_undisturbed(self, expected: Reference) -> None:
        """The directory is what a run leaves that nothing ever happened to."""
        assert self.finals() == expected.files
        names = {str(path.relative_to(self.out)) for path in self.out.rglob("*") if path.is_file()}
        logs = ("manifest", "errors", "retries", "runs")
        reports = {*(f"{name}.ndjson" for name in logs), "summary.json"}
        state = {".harvester/lock", ".harvester/state.sqlite"}
        assert names == {*expected.files, *reports, *state}
        manifest = self.lines("manifest.ndjson")
        said = [(each["file"], each["rows"], each["pages"], each["sha256"]) for each in manifest]
        assert sorted(said) == sorted(
            (name, rows, expected.pages[name], expected.digests[name])
            for name, rows in expected.rows.items()
        )
        assert all(each["bytes"] == len(expected.files[each["file"]]) for each in manifest)
        assert list(inspection.verify(Layout(self.out))) == []
        summary = self.summary()
        assert self.lines("runs.ndjson")[-1] == summary
        assert (summary["exit_code"], summary["reason"]) == (0, "complete")
        assert summary["campaigns"]["complete"] == summary["campaigns"]["total"]
        assert summary["campaigns"]["total"] == len(expected.files)
        assert self.lines("errors.ndjson") == []


def in_flight(concurrency: int) -> int:
    """How many campaigns `-j` has under way at once: so many pages may a kill cost."""
    return HarvestConfig(concurrency=concurrency).concurrency


class Forks:
    """A child that runs the command line in forks of itself, under orders."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-W", "error", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        with self._child:
            assert self._child.stdin is not None
            self._child.stdin.close()

    def run(
        self, *, tracer: Callable[[int], subprocess.Popen[str]] | None = None, **order: Any
    ) -> int:
        """Obey `crash_child.Order`; the exit code. `tracer` is given the pid before anything is
        done."""
        self._say(json.dumps(order))
        pid = self._hear()
        tracing = tracer(pid) if tracer else None
        self._say("go")
        code = self._hear()
        if tracing is not None:
            tracing.communicate(timeout=30)
        return code

    def _say(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def _hear(self) -> int:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, "the child is gone"
        return int(line)


@dataclass
class Lab:
    """A small sandbox, a child that runs harvests of it in forks, and what they must come to."""

    served: Served
    forks: Forks
    ids: list[str]
    expected: Reference
    options: list[str] = field(default_factory=list)

    def argv(self, home: Home, *more: str) -> list[str]:
        """The command line."""
        return [
            *("run", "-q", "-o", str(home.out), "--state-dir", str(home.state)),
            *("--base-url", self.served.sandbox.base_url, "--page-size", str(ROWS)),
            *("--rate", "0", *self.options, *more, *self.ids),
        ]

    def run(
        self,
        home: Home,
        *more: str,
        argv: list[str] | None = None,
        tracer: Callable[[int], subprocess.Popen[str]] | None = None,
        **order: Any,
    ) -> Ended:
        """Run the command line in a fork, under orders (`crash_child.Order`), and see it end.

        `tracer` is given the pid of the fork before it does anything.
        """
        home.log.unlink(missing_ok=True)
        argv = argv or self.argv(home, *more)
        code = self.forks.run(tracer=tracer, argv=argv, stderr=str(home.log), **order)
        return Ended(code, home.log.read_text() if home.log.exists() else "")

    def seen(self) -> int:
        """How many requests the server has had."""
        return len(self.served.hits())


@contextmanager
def lab(sandbox: Sandbox | None = None, *options: str, api: str = "v2") -> Iterator[Lab]:
    """A lab while the block lasts. The opens of v3 are harvested without counts: they would save
    requests."""
    sandbox = sandbox or small()
    ids = ids_of(sandbox, api)
    opens_alone = api == "v3" and "--report" not in options
    options = ("--api", api, *(("--no-counts",) if opens_alone else ()), *options)
    with Served(sandbox) as served, Forks() as forks:
        expected = reference(sandbox, ids)
        if api == "v3" and "--summary" in options:  # the counts of all campaigns: one request
            expected = replace(expected, details=expected.details + 1)
        yield Lab(served, forks, ids, expected, list(options))


@contextmanager
def labs(count: int = 2, *options: str, api: str = "v2", **settings: Any) -> Iterator[list[Lab]]:
    """So many labs side by side, each with a small server of its own: for `spread`."""
    with ExitStack() as stack:
        yield [stack.enter_context(lab(small(**settings), *options, api=api)) for _ in range(count)]


def spread(labs: Sequence[Lab], work: Callable[[Lab, T], bool], jobs: Iterable[T]) -> int:
    """Do `work` for each of the jobs, side by side, as long as it says yes; how often it did."""
    queue, lock = iter(jobs), threading.Lock()
    going = threading.Event()
    going.set()

    def worker(lab: Lab) -> int:
        done = 0
        while going.is_set():
            with lock:
                job = next(queue, None)
            if job is None:
                break
            try:
                more = work(lab, job)
            except BaseException:
                going.clear()
                raise
            if not more:
                going.clear()
            done += more
        return done

    with ThreadPoolExecutor(len(labs)) as pool:
        return sum(pool.map(worker, labs))
