"""Lives to be lived: one by one, or many in a process of their own."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from . import bugs_in_files, bugs_in_requests  # noqa: F401 - they fill `BUGS`
from .bugs import BUGS, Bug
from .life import Life

_MEMORY = Path("/dev/shm")


class LifeFailed(AssertionError):
    """A life that the judge condemned: what is wrong, how it came to it, how to replay it."""

    def __init__(self, message: str, trace: list[str]) -> None:
        super().__init__(message)
        self.trace = trace


@dataclass(frozen=True, kw_only=True)
class Lived:
    """What is told of a life that was lived elsewhere. `seconds` are real ones."""

    seed: int
    seconds: float
    days: float = 0.0
    requests: int = 0
    failure: str = ""


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory where there is one, for one machine."""
    path = Path(mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        (path / "machine").mkdir()
        yield path / "machine"
    finally:
        shutil.rmtree(path)


def live(seed: int, bug: Bug | None = None) -> Life:
    """Live one life to its end, with a bug planted. Raise `LifeFailed`."""
    with folder() as root:
        life = Life(seed, root)
        try:
            life.live(bug)
        except Exception as wrong:
            last = "\n".join(life.trace[-20:])
            raise LifeFailed(
                f"{type(wrong).__name__}: {wrong}\n{last}\n"
                f"replay: pytest -n0 tests/simulation --seed {seed}",
                life.trace,
            ) from wrong
        return life


def found_by(name: str, *, most: int) -> tuple[int, str] | None:
    """How many seeds it takes until a life with this bug fails, and how; None if `most` do not."""
    _in_local_time()
    for seed in range(most):
        try:
            live(seed, BUGS[name])
        except LifeFailed as failed:
            if isinstance(failed.__cause__, AttributeError | NameError | TypeError):
                raise  # what it patches is not there any more
            return seed + 1, str(failed).partition("\n")[0]
    return None


def _in_local_time() -> None:
    """As in conftest: a day of local time would show."""
    os.environ["TZ"] = "Asia/Kolkata"
    time.tzset()


def live_many(seeds: Iterable[int]) -> list[Lived]:
    """Live them one after the other, whatever becomes of them."""
    _in_local_time()
    ended = []
    for seed in seeds:
        began = time.perf_counter()
        try:
            life = live(seed)
        except LifeFailed as failed:
            seconds = time.perf_counter() - began
            ended.append(Lived(seed=seed, seconds=seconds, failure=str(failed)))
        else:
            seconds = time.perf_counter() - began
            requests = len(life.wire.seen)
            ended.append(Lived(seed=seed, seconds=seconds, days=life.days, requests=requests))
    return ended
