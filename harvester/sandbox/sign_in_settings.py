"""How the simulated sign-in of v3 behaves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from .faults import FaultPlan, Pinned

RefreshTokens = Literal["rotating", "long_lived", "silent", "none"]
Person = Literal["agrees", "denies", "waits"]
_DAY: Final = 86_400.0
_FROM_ZERO: Final = (
    *("access_token_age", "refresh_token_age", "leeway", "device_code_age", "interval"),
    *("after_polls", "after_seconds", "rate_limit"),
)


@dataclass(frozen=True, kw_only=True)
class SignInSettings:
    """The person, the tokens and the troubles of a sign-in. Times in seconds."""

    person: Person = "agrees"
    """`agrees` and `denies` by itself, or `waits` for `approve`, `deny` or the page."""
    after_polls: int = 0
    """The person decides after so many polls that were answered `authorization_pending`."""
    after_seconds: float = 0.0
    """The person decides no sooner than this after the code was given out."""
    device_code_age: float = 600.0
    interval: float = 5.0
    """Between two polls; a client that polls sooner is told to slow down, by 5 s more."""
    verification_origin: str | None = None
    """Where the page stands on which the person agrees; None: here."""

    access_token_age: float = _DAY
    refresh_tokens: RefreshTokens = "rotating"
    """`rotating`: each is good for one use. `long_lived`: the same one comes back with each new
    access token. `silent`: it stays good and does not come back. `none`: no app gets one.
    """
    leeway: float = 0.0
    """So long after its use a rotated refresh token is good for one more use."""
    refresh_token_age: float = 180 * _DAY
    """A refresh token dies when it was not used for so long."""

    rate_limit: float = 1.0
    """Requests a second at the token endpoint; 0 is no limit. They cost none of the day's quota."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Fault kind to the probability of a token request being hit."""
    pinned: str | Sequence[str] = ()
    """Kinds for the first requests at the token endpoint ("ok" is none), or one kind for all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        for name, choices in (("refresh_tokens", RefreshTokens), ("person", Person)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} is one of {get_args(choices)}, not {getattr(self, name)!r}"
                )
        for name in _FROM_ZERO:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a number from 0, not {getattr(self, name)!r}")
        self.fault_plan(1)

    def fault_plan(self, seed: int) -> FaultPlan:
        """The faults of the token endpoint; the page of a place is the number of the request."""
        pinned: Pinned = (
            {(None, None): self.pinned}
            if isinstance(self.pinned, str)
            else {(None, number): kind for number, kind in enumerate(self.pinned, 1)}
        )
        return FaultPlan(seed, self.faults, None, pinned)
