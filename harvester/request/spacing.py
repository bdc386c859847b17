"""The gap between two starts, as throttles widen it and successes narrow it again. No I/O."""

_BACK_OFF_FACTOR = 1.5  # a throttle widens the spacing by this, at most _MAX_BACK_OFF-fold
_MAX_BACK_OFF = 8.0
_RECOVERY_FACTOR = 0.995  # a success narrows it by this: some eighty requests undo one throttle
_UNPACED_GAP = 0.01  # what is widened first where there was no pace at all (s)


class Spacing:
    """The gap between two starts (s): what is asked for, widened after throttles."""

    def __init__(self, rate: float) -> None:
        self.base = 1.0 / rate if rate else 0.0
        self.gap = self.base

    def back_off(self) -> None:
        """Widen after a throttle."""
        start = self.base or _UNPACED_GAP
        self.gap = min(max(self.gap, start) * _BACK_OFF_FACTOR, start * _MAX_BACK_OFF)

    @property
    def widened(self) -> bool:
        """Whether the gap is wider than asked for."""
        return self.gap > self.base

    def recover(self) -> bool:
        """Narrow a little after a success; True once the asked-for gap is reached again."""
        self.gap *= _RECOVERY_FACTOR
        if self.gap > (self.base or _UNPACED_GAP):
            return False
        self.gap = self.base
        return True
