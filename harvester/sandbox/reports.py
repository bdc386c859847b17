r"""The six tracking reports of the v2 API, as a table: how each one's row is spelled.

Field names, activity types and value lists are those of the vendor's pages and SDK fixtures; the
order of the fields is alphabetical, as in the vendor's example body. A row is spelled as JSON text
by hand, since half of what makes real rows awkward (`\/`, raw U+2028, `1.10`, integers of thirty
digits) is lost on the way through a JSON library.

Each report lists its row in one or more spellings; in them `%(campaign)s` is JSON, the other
places are bare text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Report:
    """One tracking report.

    `once`: a contact stands in it at most once a campaign (one is sent to once, but opens often).
    """

    name: str
    spellings: tuple[str, ...]
    once: bool = False
    oldest_first: bool = False


_WHO: Final = '"contact_id":"%(contact)d","email_address":"%(email)s"'
LINKS: Final = ("0", "1", "2", "3")


def _bounce(code: str, rest: str) -> str:
    return (
        '{"activity_type":"EMAIL_BOUNCE","bounce_code":"' + code + '","bounce_date":"%(date)s",'
        '"bounce_description":' + rest + ',"campaign_id":%(campaign)s,' + _WHO + "%(extra)s}"
    )


def _unsubscribe(rest: str) -> str:
    return (
        '{"activity_type":"EMAIL_UNSUBSCRIBE","campaign_id":%(campaign)s,'
        + _WHO
        + ',"unsubscribe_date":"%(date)s",'
        + rest
        + "%(extra)s}"
    )


_ALL: Final = (
    Report(
        "sends",
        (
            '{"activity_type":"EMAIL_SEND","campaign_id":%(campaign)s,'
            + _WHO
            + ',"send_date":"%(date)s"%(extra)s}',
        ),
        once=True,
    ),
    Report(
        "opens",
        (
            '{"activity_type":"EMAIL_OPEN","campaign_id":%(campaign)s,'
            + _WHO
            + ',"open_date":"%(date)s"%(extra)s}',
        ),
    ),
    Report(
        "clicks",
        tuple(
            '{"activity_type":"EMAIL_CLICK","campaign_id":%(campaign)s,"click_date":"%(date)s",'
            + _WHO
            + ',"link_id":"'
            + link
            + '"%(extra)s}'
            for link in LINKS
        ),
    ),
    Report(
        "forwards",
        (
            '{"activity_type":"EMAIL_FORWARD","campaign_id":%(campaign)s,'
            + _WHO
            + ',"forward_date":"%(date)s"%(extra)s}',
        ),
    ),
    Report(
        "bounces",
        (
            _bounce("B", '"Non-existent address","bounce_message":""'),
            _bounce("D", '"Undeliverable","bounce_message":"550 \\"No such user\\" <x>\\r\\n"'),
            _bounce("F", '"Mailbox Full","bounce_message":""'),
            _bounce("S", '"Suspended"'),
            _bounce(
                "V", '"Vacation or Auto-reply","bounce_message":"Bin verreist \u2013 zur\u00fcck"'
            ),
            _bounce("X", '"Other","bounce_message":null'),
            _bounce("Z", '"Blocked","bounce_message":""'),
        ),
        once=True,
        oldest_first=True,
    ),
    Report(
        "unsubscribes",
        (
            _unsubscribe('"unsubscribe_reason":"","unsubscribe_source":"ACTION_BY_CUSTOMER"'),
            _unsubscribe(
                '"unsubscribe_reason":"too many },{ mails","unsubscribe_source":"ACTION_BY_CONTACT"'
            ),
            _unsubscribe('"unsubscribe_source":"ACTION_BY_OWNER"'),
        ),
        once=True,
    ),
)

REPORTS: Final[Mapping[str, Report]] = {report.name: report for report in _ALL}
"""Every tracking report by the last part of its path."""
