"""What can be refused before anything is sent, a token request included: exit 2, or 75."""

from contextlib import closing
from pathlib import Path

from harvester.client import open_ledger, require_credentials
from harvester.config import KNOWN, HarvestConfig
from harvester.disk import inspect as inspection
from harvester.disk.compress import CODECS
from harvester.disk.layout import Layout
from harvester.disk.lock import refuse_held
from harvester.errors import ConfigError, StorageError
from harvester.input.order import KnownSizes
from harvester.runtime import Clock, require_open_files


def layout_of(config: HarvestConfig) -> Layout:
    """Where everything of the config's harvest is."""
    return Layout(config.directory, CODECS[config.compress].suffix)


def preflight(config: HarvestConfig) -> None:
    """Raise `ConfigError` if a run of `config` cannot begin: for its credentials, its ledger, its
    files, or a directory that holds another harvest; `StopRun` ("locked") if a run works there.

    Nothing is changed. What the directory's lock guards is checked once more when it is held; a run
    on another machine shows only then.
    """
    require_open_files(config.open_files)
    require_credentials(config)
    try:
        with closing(open_ledger(config, Clock())) as ledger:
            ledger.used_today()
    except StorageError as wrong:  # the day's count cannot be kept where it is to be
        raise ConfigError(f"{wrong} (`state_dir`)") from None
    if config.sizes is not None:
        with closing(KnownSizes()) as sizes:
            sizes.read(Path(config.sizes))
    layout = layout_of(config)
    try:
        if not config.fresh:
            inspection.check_directory(layout, config.identity(), known_reports=KNOWN)
    except OSError as wrong:
        raise ConfigError(f"cannot use {layout.root} (`output`): {wrong.strerror}") from None
    refuse_held(layout)
