"""How many files this process may have open: asked before a run, not found out in the middle."""

import resource

from harvester.errors import ConfigError


def raise_open_files(count: int) -> None:
    """Let this process have `count` files open, or as many as it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _enough(soft, count):
        soft = count if _enough(hard, count) else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def require_open_files(count: int) -> None:
    """Raise `ConfigError` if this process may not have `count` files open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _enough(soft, count):
        raise ConfigError(
            f"concurrency: so many campaigns at once need {count} open files, and this process "
            f"may have {soft}: allow it more (ulimit -n {count}), or give a lower --concurrency"
        )


def _enough(limit: int, count: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= count
