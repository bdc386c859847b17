"""How many requests a run still takes: by the API's counts where they are known, else at least."""

from harvester import events
from harvester.events import Event
from harvester.model import Target


class RequestsLeft:
    """Reduces events to the requests that are left.

    A walk whose pages are not known takes at least one. The average of the walks that are over
    would be too low: small campaigns end first.
    """

    def __init__(self) -> None:
        self._walks: int | None = None  # those of the run that were not begun or passed over yet
        self._counted = self._requests = 0  # those among them that are counted, and what they take
        self._details = 0
        self._open: dict[Target, int | None] = {}  # walks under way, and the pages they have left

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case events.PageCommitted(target=target):  # first: it comes most often
                if left := self._open.get(target):
                    self._open[target] = left - 1
            case events.RunStarted(total=total, reports=reports):
                self._walks = None if total is None else total * len(reports)
            case events.WorkCounted():
                self._counted += event.walks
                self._requests += event.requests
                self._details += event.details
            case events.DetailAsked():
                self._details = max(0, self._details - 1)
            case events.IdRepeated():
                self._take(None, 0)
            case _:
                self._follow(event)

    def _follow(self, event: Event) -> None:
        """Take in what happens to one walk."""
        match event:
            case events.CampaignStarted(target=target) if target not in self._open:
                self._open[target] = self._take(event.expected, event.pages)
            case events.WalkRestarted(target=target):
                left = self._open.get(target)
                if left is not None:
                    self._open[target] = left + event.page - 1
            case events.CampaignSkipped(target=target):
                self._end(target, event.expected)
            case events.CampaignCompleted() | events.CampaignFailed() | events.CampaignDeferred():
                self._end(event.target, None)

    def _take(self, expected: int | None, pages: int) -> int | None:
        """A walk is begun or passed over; give the pages that it has left."""
        if self._walks is not None:
            self._walks -= 1
        if expected is None:
            return None
        left = max(0, expected - pages)
        self._counted -= 1
        self._requests -= left
        return left

    def _end(self, target: Target, expected: int | None) -> None:
        if target in self._open:
            del self._open[target]
        else:
            self._take(expected, expected or 0)

    @property
    def requests(self) -> int | None:
        """The requests that are left; None if it is not known how many campaigns there are."""
        if self._walks is None:
            return None
        under_way = sum(1 if left is None else left for left in self._open.values())
        return max(0, self._requests) + self._details + self._uncounted + under_way

    @property
    def at_least(self) -> bool:
        """Whether there may be more."""
        return bool(self._uncounted) or None in self._open.values()

    @property
    def _uncounted(self) -> int:
        return max(0, (self._walks or 0) - self._counted)
