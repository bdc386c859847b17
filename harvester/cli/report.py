"""`harvester report`: one page about a harvest."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from harvester.disk.layout import Layout
from harvester.disk.storage import replace_file, storage
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
        with click.progressbar(
            length=manifest.bytes,
            label="reading the files",
            file=sys.stderr,
            hidden=not (manifest.bytes and sys.stderr.isatty()),
        ) as bar:
            figures = gather(layout, manifest, now=datetime.now(UTC), advance=bar.update)
    except OSError as wrong:
        raise click.ClickException(f"cannot read {wrong.filename}: {wrong.strerror}") from None
    page = render(figures)
    if target is None:
        click.echo(page, nl=False)
        return 0
    _write(target, page)
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
    if target.exists() and not target.is_file():
        with storage(target):
            target.write_bytes(page)
    else:
        replace_file(target, page)
