"""Campaign ids from arguments, a file or standard input: checked, counted, each once.

All of it happens before anything is sent, so a typing error on line 99,999 costs no request. The
ids are spooled to a private temporary table, not to memory: a hundred thousand are normal.
"""

import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harvester.disk.disk_set import DiskSet
from harvester.errors import ConfigError

_LONGEST_LINE = 64 * 1024  # bytes


def spool(
    arguments: Iterable[str],
    source: str | None,
    check: Callable[[str], str],
    *,
    setting: str = "input",
) -> DiskSet:
    """Spool the ids of the command line, then of `source` (a path, or "-" for standard input).

    Raise `ConfigError` with file and line number for an id that `check` refuses, and with `setting`
    for a source that cannot be read.
    """
    ids = DiskSet()
    try:
        ids.extend(check(campaign_id) for campaign_id in arguments)
        if source is not None:
            name = "standard input" if source == "-" else source
            try:
                with _opened(source, setting) as file:
                    ids.extend(_lines(file, name, check))
            except OSError as wrong:
                raise ConfigError(
                    f"cannot read {name}: {wrong.strerror}", setting=setting
                ) from None
    except BaseException:
        ids.close()
        raise
    return ids


@contextmanager
def _opened(source: str, setting: str) -> Iterator[BinaryIO]:
    if source != "-":
        with Path(source).open("rb") as file:
            yield file
    elif sys.stdin is None:  # as Python has it where it was closed before the start
        raise ConfigError("cannot read standard input: it is closed", setting=setting)
    else:
        yield sys.stdin.buffer


def _lines(file: BinaryIO, name: str, check: Callable[[str], str]) -> Iterator[str]:
    pieces = iter(lambda: file.readline(_LONGEST_LINE), b"")
    for number, raw in enumerate(pieces, 1):
        if len(raw) == _LONGEST_LINE:
            raise ConfigError(f"{name}, line {number} is longer than any id")
        if number == 1 and raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            raise ConfigError(f"{name} is UTF-16 text: save it as UTF-8")
        text = raw.removeprefix(BOM_UTF8) if number == 1 else raw
        line = text.decode("utf-8", "backslashreplace").strip()
        if not line or line.startswith("#"):
            continue
        try:
            yield check(line)
        except ConfigError as wrong:
            raise ConfigError(f"{name}, line {number}: {wrong}") from None
