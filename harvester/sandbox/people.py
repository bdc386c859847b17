r"""What a row says of a contact, as bare JSON string text (already escaped).

Half of what makes real rows awkward (`\/`, raw U+2028, `1.10`, integers of thirty digits) is lost
on the way through a JSON library. So the sandbox spells its rows as text, by hand.
"""

from typing import Final

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
