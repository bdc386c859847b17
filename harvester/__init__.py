"""Harvest the tracking events of many email campaigns: every event, once.

The flow, one folder a step:

    campaign ids → coordinator → one walk per campaign → retry → auth → throttle → http → api
                                       └→ part + checkpoint → finished file, manifest, reports

    from harvester import HarvestConfig, harvest
    report = await harvest(["1100394165287"], HarvestConfig(api_key=..., access_token=...))

`harvest` makes a whole run with files; `walk` yields one campaign's pages and `campaigns` the
account's list, without any file. `HarvestConfig` holds every setting, `harvester.events` what an
observer sees, and `harvester.errors` what can be raised.
"""

from typing import TYPE_CHECKING

from harvester._version import __version__

if TYPE_CHECKING:
    from harvester.client import campaigns, walk
    from harvester.config import HarvestConfig
    from harvester.device_flow import sign_in
    from harvester.errors import CampaignError, ConfigError, HarvestError, StopRun
    from harvester.model import Page
    from harvester.reporting.summary import HarvestReport
    from harvester.run import Harvester, harvest

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
    "campaigns",
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
    "campaigns": "client",
    "harvest": "run",
    "sign_in": "device_flow",
    "walk": "client",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `harvester --version` needs no aiohttp."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"harvester.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, imported or not."""
    return sorted({*globals(), *__all__})
