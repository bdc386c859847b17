r"""How a row is spelled: the exact JSON text, by version and report.

Half of what makes real rows awkward (`\/`, raw U+2028, `1.10`, integers of thirty digits) is lost
on the way through a JSON library. So the sandbox spells its rows as text, by hand.

Field names, types and value lists are those of the vendor's pages and SDK fixtures. The fields of
v2 come in alphabetical order, as in the vendor's example body; those of v3 in the order of its
OpenAPI description.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

_WHO: Final = '"contact_id":"%(contact)d","email_address":"%(email)s"'
LINKS: Final = ("0", "1", "2", "3")
"""The ids of a campaign's links, in both versions."""
_EXTRAS: Final = (
    ',"device_type":"mobile"',
    ',"sequence":123456789012345678901234567890',
    ',"score":1.10',
    ',"detail":{"path":["a},{b",null,{"deep":1E+2}],"ok":true}',
)
_V3_EXTRAS: Final = (',"source":"api"', *_EXTRAS[1:])


def timestamp(epoch_ms: int) -> str:
    """As the API spells a time: UTC, three digits of a second, `Z`."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def extra(event: int, *, v3: bool = False) -> str:
    """A member that is documented nowhere, for one event in 53."""
    extras = _V3_EXTRAS if v3 else _EXTRAS
    return extras[event // 53 % len(extras)] if event % 53 == 29 else ""


def link_url(campaign_id: str, link: str) -> str:
    """Where a link of a campaign leads; needs no JSON escape."""
    return f"https://www.example.com/{campaign_id}/{link}?a=1&b=%2F"


# -- contacts, as bare JSON string text (already escaped) ---------------------------------------

_NAMES: Final = (
    "ann", "bo", "carla", "dmitri", "edith", "femi", "grace", "hugo", "ines", "jun", "kim",
)  # fmt: skip
_HOSTS: Final = ("example.com", "example.org", "mail.example.net")
_AWKWARD: Final = (
    r"\"quoted \\ name\"%d@example.com",
    "j\u00fcrgen.m\u00fc\u00dfig%d@ex\u00e4mple.de",
    r"path\/to\/%d@example.com",
    "line\u2028break%d@example.com",
    r"line\u2029escaped%d@example.com",
    "brace},{%d@example.com",
    r"]}\",\"next_link\":\"%d@example.com",
    "\u65e5\u672c%d@\u4f8b\u3048.jp",
    "\U0001f600%d@example.com",
    r"\ud83d\ude00\u00e9%d@example.com",
    "percent%%2Bplus+%d@example.com",
    r"tab\tnew\nline%d@example.com",
    "long" + "g" * 300 + "%d@example.com",
)
_FIRST_NAMES: Final = (
    "Ann", "Bo", "", " ", "Mary Lou ", r"J\u00fcrgen", "Zo\u00eb", r"\"Ace\"", "\u6625\u5b50",
    r"Jos\u00e9 \/ Pepe", "\U0001f98a", "O'Neil", "null",
)  # fmt: skip
_LAST_NAMES: Final = (
    "Smith", "", "M\u00fc\u00dfig", r"van \"der\" Berg", "\u7530\u4e2d", r"Back\\slash",
    r"}],\"_links\":{\"next\":null}", "Jr.\u2028", "N\u0303unez",
)  # fmt: skip


def email(contact: int) -> str:
    """The address of a contact; one in twelve is hard to parse."""
    if contact % 12 == 5:
        return _AWKWARD[contact // 12 % len(_AWKWARD)] % contact
    return f"{_NAMES[contact % len(_NAMES)]}{contact}@{_HOSTS[contact % len(_HOSTS)]}"


def names(contact: int) -> str:
    """The members `first_name` and `last_name` of a contact, each with a comma before it.

    Either may be missing. Some are blank, escaped or not ASCII.
    """
    members = ""
    if contact % 5:
        members = f',"first_name":"{_FIRST_NAMES[contact % len(_FIRST_NAMES)]}"'
    if contact % 7:
        members += f',"last_name":"{_LAST_NAMES[contact % len(_LAST_NAMES)]}"'
    return members


# -- v2 ----------------------------------------------------------------------------------------


def _event(name: str, date: str, more: str = "") -> str:
    """The simple form: the campaign, the contact and a date."""
    return (
        f'{{"activity_type":"{name}","campaign_id":%(campaign)s,{_WHO},"{date}":"%(date)s"'
        f"{more}%(extra)s}}"
    )


def _click(link: str) -> str:
    return (
        '{"activity_type":"EMAIL_CLICK","campaign_id":%(campaign)s,"click_date":"%(date)s",'
        f'{_WHO},"link_id":"{link}"%(extra)s}}'
    )


def _bounce(code: str, rest: str) -> str:
    return (
        f'{{"activity_type":"EMAIL_BOUNCE","bounce_code":"{code}","bounce_date":"%(date)s",'
        f'"bounce_description":{rest},"campaign_id":%(campaign)s,{_WHO}%(extra)s}}'
    )


def _unsubscribe(rest: str) -> str:
    return _event("EMAIL_UNSUBSCRIBE", "unsubscribe_date", f",{rest}")


V2_SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "sends": (_event("EMAIL_SEND", "send_date"),),
    "opens": (_event("EMAIL_OPEN", "open_date"),),
    "clicks": tuple(_click(link) for link in LINKS),
    "forwards": (_event("EMAIL_FORWARD", "forward_date"),),
    "bounces": (
        _bounce("B", '"Non-existent address","bounce_message":""'),
        _bounce("D", '"Undeliverable","bounce_message":"550 \\"No such user\\" <x>\\r\\n"'),
        _bounce("F", '"Mailbox Full","bounce_message":""'),
        _bounce("S", '"Suspended"'),
        _bounce("V", '"Vacation or Auto-reply","bounce_message":"Bin verreist \u2013 zur\u00fcck"'),
        _bounce("X", '"Other","bounce_message":null'),
        _bounce("Z", '"Blocked","bounce_message":""'),
    ),
    "unsubscribes": (
        _unsubscribe('"unsubscribe_reason":"","unsubscribe_source":"ACTION_BY_CUSTOMER"'),
        _unsubscribe(
            '"unsubscribe_reason":"too many },{ mails","unsubscribe_source":"ACTION_BY_CONTACT"'
        ),
        _unsubscribe('"unsubscribe_source":"ACTION_BY_OWNER"'),
    ),
}
"""Each report's row in one or more spellings. `%(campaign)s` is JSON, the rest is bare text."""


# -- v3 ----------------------------------------------------------------------------------------

_DEVICES: Final = tuple(
    f',"device_type":"{device}"' for device in ("computer", "mobile", "tablet", "other")
)

V3_SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "sends": ("",),
    "opens": (*_DEVICES, ""),
    "clicks": tuple(
        f'{device},"url_id":"{link}","link_url":"%({link})s"'
        for link, device in zip(LINKS, (*_DEVICES[:3], ""), strict=True)
    ),
    "forwards": ("",),
    "bounces": (
        *(f',"bounce_code":"{code}"' for code in "BDFSVXZ"),
        ',"bounce_code":"B","current_email_address":"new%(contact)d@example.com"',
    ),
    "unsubscribes": (
        "",
        ',"opt_out_reason":""',
        ',"opt_out_reason":"too many },{ mails \u2013 \\"stop\\"\\u2028"',
    ),
}
"""The members that a report's row has beside those of all rows; they start with a comma."""
