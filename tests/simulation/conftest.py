"""`pytest -n0 tests/simulation --seed N` replays one life and shows what happened in it."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The seed."""
    parser.addoption("--seed", type=int, default=None, help="replay the life of this seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a seed only its replay is run, and without one all the rest."""
    replay = config.getoption("--seed", default=None) is not None
    for item in [each for each in items if each.path.parent == Path(__file__).parent]:
        if (item.name == "test_replay") != replay:
            items.remove(item)
