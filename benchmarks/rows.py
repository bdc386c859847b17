"""How the rows of each mix are spelled: the same text for the server and for the judge.

A row is a head, the place of its own (campaign and page) and a tail. Heads hold no `}`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

_NAMES = ("abigail", "benjamin", "charlotte", "dominic", "eleanor", "frederick", "gabriella")
_HOSTS = ("example.com", "mail.example.org", "example.net", "post.example.co.uk")
_FIRST = ("Ana", "Jean Luc", "Zo\\u00eb", "Søren", "Mary Ann", "李", "O\\u0027Neil", "Bob")
_LAST = ("García", "van der Berg", 'de la \\"Cruz\\"', "Müller", "Smith", "Nguyễn", "Le Roy")
_DEVICES = (',"device_type":"mobile"', ',"device_type":"computer"', "")
_BOUNCES = (
    ("B", '"Non-existent address"', '"550 5.1.1 <%s>: user unknown\\r\\n"'),
    ("D", '"Undeliverable"', '"550 \\"No such user\\" here (in reply to RCPT TO)\\r\\n"'),
    ("F", '"Mailbox Full"', '""'),
    ("V", '"Vacation or Auto-reply"', '"Bin verreist, zurück am 3. März"'),
)


@dataclass(frozen=True, slots=True)
class Mix:
    """One kind of row.

    `own` has the places of `owner`, `page` and `hour`; `row` gives head and tail of a row from
    chance and the row's number on its page.
    """

    about: str
    row: Callable[[random.Random, int], tuple[str, str]]
    own: str = '%(owner)s","contact_id":"%(page)05d'
    api: str = "v2"
    report: str = "opens"
    indented: bool = False

    def spelled(self, text: str) -> bytes:
        """A piece of a row as the API sends it."""
        if self.indented:
            for dense, wide in (
                ('":"', '": "'), ('","', '",\n      "'), ("{", "{\n      "), ("}", "\n    }")
            ):  # fmt: skip
                text = text.replace(dense, wide)
        return text.encode()


def _email(chance: random.Random) -> str:
    return f"{chance.choice(_NAMES)}.{chance.randrange(10**6)}@{chance.choice(_HOSTS)}"


def _moment(chance: random.Random) -> str:
    return (
        f"{chance.randrange(2010, 2026)}-{chance.randrange(1, 13):02}"
        f"-{chance.randrange(1, 29):02}T{chance.randrange(24):02}"
        f":{chance.randrange(60):02}:{chance.randrange(60):02}.{chance.randrange(1000):03}Z"
    )


def _open(chance: random.Random, row: int) -> tuple[str, str]:
    tail = f'{row:03}","email_address":"{_email(chance)}","open_date":"{_moment(chance)}"}}'
    return '{"activity_type":"EMAIL_OPEN","campaign_id":"', tail


def _v3_open(chance: random.Random, row: int) -> tuple[str, str]:
    """Names with blanks, escapes and letters that are not ASCII; members that are not always
    there; a number of thirty digits now and then. Newest first, each page an hour."""
    names = ""
    if row % 12 == 5:
        names = f',"first_name":"{chance.choice(_FIRST)}","last_name":"{chance.choice(_LAST)}"'
    elif row % 3:
        names = f',"first_name":"{chance.choice(_NAMES)}","last_name":"Smith"'
    number = ',"sequence":123456789012345678901234567890' if row % 53 == 29 else ""
    tail = (
        f':{59 - row * 60 // 512:02}:00.000Z","email_address":"{_email(chance)}"{names}'
        f"{chance.choice(_DEVICES)}{number}}}"
    )
    return f'{{"contact_id":"{row:08x}-0000-4000-8000-0000000', tail


def _bounce(chance: random.Random, row: int) -> tuple[str, str]:
    code, about, message = chance.choice(_BOUNCES)
    email = _email(chance)
    head = (
        f'{{"activity_type":"EMAIL_BOUNCE","bounce_code":"{code}","bounce_date":"{_moment(chance)}"'
        f',"bounce_description":{about},"bounce_message":{message.replace("%s", email)}'
        ',"campaign_id":"'
    )
    return head, f'{row:03}","email_address":"{email}"}}'


MIXES = {
    "opens": Mix("v2 opens, dense", _open),
    "v3": Mix(
        "v3 opens with names",
        _v3_open,
        own='%(page)05d","campaign_activity_id":"%(owner)s","tracking_activity_type":"em_opens"'
        ',"created_time":"%(hour)s',
        api="v3",
    ),
    "bounces": Mix("v2 bounces with messages", _bounce, report="bounces"),
    "indented": Mix("v2 opens, indented", _open, indented=True),
}
