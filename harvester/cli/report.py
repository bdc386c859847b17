"""`harvester report`: one page about a harvest."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import click

from harvester.cli.failures import CommandFailed
from harvester.disk.layout import Layout
from harvester.errors import ConfigError
from harvester.reporting.page.gather import gather, open_directory
from harvester.reporting.page.render import render

_NAME = Layout(Path()).report_page.name
_ENDINGS = (".html", ".htm")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"Where the page goes; - is standard output.  [default: DIR/{_NAME}]",
)
def report(directory: Path, output: str | None) -> int:
    """Make one HTML page about the harvest in DIR: what is there, what failed, what to do next.

    It reads every finished file once. The page is one file without script; it names no contact.
    """
    target = None if output == "-" else _target(directory, output)
    try:
        layout, manifest = open_directory(directory)
        with _progress(manifest.bytes()) as advance:
            figures = gather(layout, manifest, now=datetime.now(UTC), advance=advance)
    except OSError as wrong:
        raise CommandFailed(f"cannot read {wrong.filename}: {wrong.strerror}") from None
    page = render(figures)
    if target is None:
        click.echo(page, nl=False)
        return 0
    try:
        _write(target, page)
    except OSError as wrong:
        raise CommandFailed(f"cannot write {target}: {wrong.strerror}") from None
    click.echo(f"the page is {target}", err=True)
    return 0


def _target(directory: Path, output: str | None) -> Path:
    """The file to write. Raise `ConfigError` where it would take the place of the harvest's own."""
    if output is None:
        return Layout(directory).report_page
    if not output.strip():
        raise ConfigError("the path of the page (--output) is empty")
    target = Path(output)
    if target.is_dir():
        raise ConfigError(f"{target} (--output) is a directory: give a file name, as {_NAME}")
    if not target.parent.is_dir():
        raise ConfigError(f"{target} (--output): there is no directory {target.parent}")
    inside = target.resolve().is_relative_to(directory.resolve())
    if inside and target.suffix.lower() not in _ENDINGS:
        raise ConfigError(
            f"{target} (--output) is in the directory of the harvest: the page's name must end "
            f"in .html there, so that it replaces no data"
        )
    return target


def _write(target: Path, page: bytes) -> None:
    """Put the page in its place in one step; a device or pipe takes it as it comes."""
    target = target.resolve()
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        target.write_bytes(page)
        return
    with NamedTemporaryFile(
        dir=target.parent, prefix=".report-", suffix=".tmp", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(page)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of bytes on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("reading the files"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
