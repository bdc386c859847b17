"""The library speaks of settings, the command line of its options: from one to the other.

A message names a setting as `max_wait`, in backticks; a person at a command line reads --max-wait.
"""

import re

_NO_FLAG = {
    "api_key": "HARVESTER_API_KEY",
    "access_token": "HARVESTER_ACCESS_TOKEN",
    "proxy": "HTTPS_PROXY",
    "counts": "--no-counts",
}
"""What the command line calls a setting that has no option of its name."""
_QUOTED = r"`([a-z_]+)`"


def flag(setting: str) -> str:
    """The option of a setting."""
    return _NO_FLAG.get(setting, "--" + setting.replace("_", "-"))


def by_flags(message: str) -> str:
    """A message of the library, with options in the place of settings."""
    from harvester.config import settings_table  # for a message that has one

    def option(found: re.Match[str]) -> str:
        return flag(found[1]) if found[1] in {"status", *settings_table()} else found[0]

    return re.sub(_QUOTED, option, message) if "`" in message else message
