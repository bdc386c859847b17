"""A client of the simulated v3 API that needs no socket, and what its tests share."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from harvester.sandbox import Reply, Request, SandboxSettings, Service

SMALL: dict[str, Any] = {"campaigns": 9, "pages": 40, "rows_per_page": 10, "resends": 4}
DAY = 86_400.0
NOW = 20_000 * DAY
REPORTS = "/v3/reports/email_reports"
STATS = "/v3/reports/stats/email_campaigns"


@dataclass
class Client:
    """A client of a service without sockets. It believes everything."""

    service: Service
    token: str = "sandbox-token"
    now: float = 0.0
    wall: float = NOW
    replies: list[Reply] = field(default_factory=list)

    def ask(self, target: str, **headers: str) -> Reply:
        """One request."""
        given = {"authorization": f"Bearer {self.token}", **headers}
        request = Request(target=target, headers=given, now=self.now, wall=self.wall)
        self.replies.append(self.service.handle(request))
        return self.replies[-1]

    def json(self, target: str, status: int = 200) -> Any:
        """The document of an answer with that status."""
        answer = self.ask(target).answer
        assert answer.status == status, answer.body
        return orjson.loads(answer.body)

    def walk(self, target: str) -> list[bytes]:
        """Every row from a first target to the end, as raw JSON."""
        rows = []
        while target:
            body = self.ask(target).answer.body
            rows += raw_rows(body)
            target = next_link(orjson.loads(body))
        return rows


def client(**asked: Any) -> Client:
    """A small account at a fixed time."""
    ready = Client(Service(SandboxSettings(**{**SMALL, "wall": lambda: ready.wall, **asked})))
    return ready


def raw_rows(body: bytes) -> list[bytes]:
    """The rows cut out of a page without being parsed: each starts with its contact."""
    start = body.index(b"[") + 1
    end = body.rindex(b'],"_links"') if body.endswith(b'"}}}') else body.rindex(b"]")
    pieces = body[start:end].split(b',{"contact_id"')
    return [
        piece if n == 0 else b'{"contact_id"' + piece for n, piece in enumerate(pieces) if piece
    ]


def next_link(page: Any) -> str:
    return ((page.get("_links") or {}).get("next") or {}).get("href") or ""


def tracking(activity: str, report: str, query: str = "limit=10") -> str:
    return f"{REPORTS}/{activity}/tracking/{report}?{query}"


def mailings(world: Any, campaign: str) -> list[str]:
    """The activities of a campaign that have reports."""
    return [each for each, role in world.activities(campaign) if role != "permalink"]


def loaded(rows: Any) -> list[dict[str, Any]]:
    return [orjson.loads(row) for row in rows]


def stats_by_rows(world: Any, activities: list[str]) -> dict[str, int]:
    """The numbers as they follow from the rows."""
    counts: Counter[str] = Counter()
    for activity in activities:
        for name in ("sends", "opens", "clicks", "forwards", "optouts", "bounces"):
            rows = loaded(world.records(name, activity))
            counts[f"em_{name}"] += len({row["contact_id"] for row in rows})
            if name in ("opens", "clicks"):
                counts[f"em_{name}_all"] += len(rows)
        counts["em_not_opened"] += world.rows("did_not_open", activity)
    return {**counts, "em_abuse": 0}
