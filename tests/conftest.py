"""What every test module may ask for."""

import os

import pytest
from fakes import FakeClock, Seen
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at noon until it is moved."""
    return FakeClock()


@pytest.fixture
def seen() -> Seen:
    """An observer that keeps every event."""
    return Seen()
