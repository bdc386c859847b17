"""The v2 API without a wire: a question in, an answer out, as the vendor's pages describe it."""

from dataclasses import replace
from functools import partial
from typing import Final

from . import cursor
from .answers import NOT_FOUND, Answer, AnswerCache, Body, document
from .chance import draw
from .cursor import Window
from .question import Question
from .reports import REPORTS
from .settings import SandboxSettings
from .world import World


class Api:
    """Answers questions out of a world."""

    def __init__(self, settings: SandboxSettings, world: World) -> None:
        self._settings, self._world = settings, world
        self._cache = AnswerCache(settings.cache_pages)
        self._moves = settings.reorder_list

    def answer(self, question: Question) -> Answer:
        """The answer of a server that is well. Does not change the world; `answered` does."""
        if question.problem is not None:
            return question.problem
        fresh = question.params.get("updateSummary") == "true"
        match question.report:
            case "campaigns":
                return self._campaigns(question)
            case "campaign":
                return self._campaign(question.campaign_id, fresh=fresh)
            case "summary":
                return self._summary(question.campaign_id, fresh=fresh)
        arrived = self._world.arrived(question.report, question.campaign_id)
        key = (question.report, question.campaign_id, question.window, arrived)
        return self._cache.get(key, partial(self._tracking, question))

    def answered(self, question: Question, answer: Answer) -> None:
        """What happens in the account right after a good answer: events arrive, campaigns move."""
        if answer.status != 200 or question.problem is not None:
            return
        if self._settings.arrivals and question.report in REPORTS and not answer.last:
            count = self._settings.arrivals
            self._world.add_events(question.report, question.campaign_id, count)
        if self._moves and question.report == "campaigns":
            ids = self._world.listing("SENT")
            self._world.touch(ids[draw(self._settings.seed, 8, self._moves) % len(ids)])
            self._moves -= 1

    def warm(self, report: str) -> None:
        """Render and compress every page of a report, as far as the cache holds."""
        limit = self._settings.rows_per_page
        for campaign_id in self._world.campaign_ids:
            path = f"/v2/emailmarketing/campaigns/{campaign_id}/tracking/{report}"
            for page in range(self._world.pages(report, campaign_id, limit)):
                window = Window(page * limit, limit)
                question = Question(path, report, campaign_id, window=window)
                self.answer(question).body.gzip()

    def _tracking(self, question: Question) -> Answer:
        """One page of a tracking report."""
        window = question.window
        stream = self._world.stream(question.report, question.campaign_id)
        places = stream.since(window.since_ms)
        end = window.start + self._rows_wanted(window, question.campaign_id, len(places))
        by_time = self._settings.cursor == "timestamp"
        if by_time:  # a millisecond is never torn apart, so a page may hold a row or two more
            dates = [stream.date_ms(stream.event_at(place)) for place in places[end - 1 : end + 9]]
            end += dates[1:].count(dates[0]) if dates else 0
        rows = ",".join(stream.rows(places[window.start : end]))
        following = None
        if end < len(places):
            keep = self._settings.cursor_keeps_since
            if by_time:
                after = replace(window, beyond_ms=stream.date_ms(stream.event_at(places[end - 1])))
                following = cursor.timestamp_cursor(after, keep_since=keep)
            else:
                after = replace(window, start=end, gap=end == window.start)
                following = cursor.offset_cursor(after, keep_since=keep)
        return self._page(question.path, rows, following)

    def _rows_wanted(self, window: Window, campaign_id: str, total: int) -> int:
        """`limit`; with irregular pages, short of the last one, also one more, one less, none."""
        beyond = window.start + window.limit
        if not self._settings.irregular or self._settings.cursor != "offset" or beyond >= total:
            return window.limit
        match draw(self._settings.seed, 9, int(campaign_id), window.start) % 6:
            case 0:
                return window.limit + 1
            case 1 if window.limit > 1:
                return window.limit - 1
            case 2 if not window.gap:
                return 0
        return window.limit

    def _page(self, path: str, rows: str, following: str | None) -> Answer:
        """A page as the vendor's example spells it."""
        if following is not None:
            meta = f'"meta":{{"pagination":{{"next_link":"{path}?next={following}"}}}},'
        else:
            meta = _LAST_META[self._settings.last_page]
        body = Body(f'{{{meta}"results":[{rows}]}}'.encode())
        return Answer(200, body, last=following is None)

    def _campaigns(self, question: Question) -> Answer:
        window = question.window
        ids = self._world.listing(window.status, window.since_ms)
        end = window.start + window.limit
        rows = [self._world.brief(campaign_id) for campaign_id in ids[window.start : end]]
        following = cursor.page_cursor(replace(window, start=end)) if end < len(ids) else None
        return self._page(question.path, document(rows).body.plain.decode()[1:-1], following)

    def _campaign(self, campaign_id: str, *, fresh: bool) -> Answer:
        if self._world.status(campaign_id) == "DELETED":
            return NOT_FOUND
        return document(self._world.detail(campaign_id, fresh=fresh))

    def _summary(self, campaign_id: str, *, fresh: bool) -> Answer:
        summary = self._world.summary(campaign_id, fresh=fresh)
        if campaign_id in self._settings.doctored:
            summary["opens"] += 1
        return document(summary)


_LAST_META: Final = {
    "absent": '"meta":{"pagination":{}},',
    "null": '"meta":{"pagination":{"next_link":null}},',
    "empty": '"meta":{"pagination":{"next_link":""}},',
    "no_pagination": '"meta":{},',
    "no_meta": "",
}
