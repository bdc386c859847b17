"""Harvest the tracking events of many email campaigns: every event, once.

The pipeline, one module a step:

    ids → coordinator → campaign → walk → retry → throttle → fetch → api
                            └→ output (rows) + checkpoint (position) → reports

`harvest` makes a whole run with files; `walk` yields one campaign's pages without any.
`HarvestConfig` holds every setting, `harvester.events` what an observer sees, and
`harvester.errors` what can be raised.
"""

from typing import TYPE_CHECKING

from harvester._version import __version__

if TYPE_CHECKING:
    from harvester.client import walk
    from harvester.config import HarvestConfig
    from harvester.errors import CampaignError, ConfigError, HarvestError, StopRun
    from harvester.model import Page
    from harvester.reporting.summary import HarvestReport
    from harvester.run import Harvester, harvest
    from harvester.sign_in import sign_in

__all__ = [
    "CampaignError",
    "ConfigError",
    "HarvestConfig",
    "HarvestError",
    "HarvestReport",
    "Harvester",
    "Page",
    "StopRun",
    "__version__",
    "harvest",
    "sign_in",
    "walk",
]

_HOMES = {
    "CampaignError": "errors",
    "ConfigError": "errors",
    "HarvestConfig": "config",
    "HarvestError": "errors",
    "HarvestReport": "reporting.summary",
    "Harvester": "run",
    "Page": "model",
    "StopRun": "errors",
    "harvest": "run",
    "sign_in": "sign_in",
    "walk": "client",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: `harvester --version` needs no aiohttp."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"harvester.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
