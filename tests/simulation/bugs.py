"""Bugs, each planted by a patch, each of a kind that a harvester could have.

A bug that no seed finds is a hole in the simulation.
"""

from collections.abc import Callable
from typing import Any

import pytest

Patch = pytest.MonkeyPatch
Bug = Callable[[Patch, Any], None]
"""Plants itself. The second argument is the plan of the life."""
BUGS: dict[str, Bug] = {}


def bug(plant: Bug) -> Bug:
    """Put a function into `BUGS`."""
    BUGS[plant.__name__] = plant
    return plant
