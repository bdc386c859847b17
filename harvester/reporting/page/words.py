"""The words of the page: why a run ended, what a failure means, and text from outside."""

import re

from harvester.reporting.page.sources import Run

DATE_FIELDS = {
    "opens": "open_date",
    "clicks": "click_date",
    "sends": "send_date",
    "bounces": "bounce_date",
    "forwards": "forward_date",
    "unsubscribes": "unsubscribe_date",
}
"""The date of a v2 row, by report (v2, "Campaign tracking"). Every row of v3 has `created_time`."""

UNDATED = frozenset({"links"})
"""Reports whose rows are no events."""

_ADDRESS = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")
_NUMBER = re.compile(r"\d{8,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)

_ASK_OWNER = "The account has no privilege for this campaign. Ask the account's owner."
_AGAIN = (
    "Run the same command again: it tries these campaigns once more. If it stays, the message says "
    "what the API sent."
)
ADVICE = {
    "not_found": "The API does not know this campaign. Check the id and the account; then add "
    "--retry-failed to the command.",
    "not_sent": "The campaign is not sent yet. Later runs try it again.",
    "forbidden": _ASK_OWNER,
    "unauthorized": _ASK_OWNER,
    "redirected": "The API sent the request elsewhere, and that is not followed. Check --base-url.",
    "set_aside": "The API asked for a long wait. Run the same command later.",
    "moving": "Events arrived faster than they could be read. Run the same command at a quieter "
    "time.",
    "page_cap": "The campaign has more pages than --max-pages allows. Raise it.",
    "poison_page": "One page never came. Run the same command again, with a smaller "
    "--min-page-size.",
    "damaged_file": "A file on the disk is damaged. Add --repair to the command.",
    "unexpected": "An unexpected error in harvester. The message names the file and line.",
}


def advice(kind: str) -> str:
    """What to do about a kind of failure."""
    return ADVICE.get(kind, _AGAIN)


def ended_by(run: Run) -> str:
    """Why a run ended."""
    return plain(run.message or run.reason.replace("_", " "))


def identifier(text: str, *, at_most: int = 60) -> str:
    """A name or id from outside, fit to be shown: short, printable, without addresses."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * at_most])
    shown = _ADDRESS.sub("[address]", " ".join(shown.split()))
    return shown if len(shown) <= at_most else f"{shown[: at_most - 1]}…"


def plain(text: str, *, keep: str = "", at_most: int = 160) -> str:
    """Text from outside in the same way, and without ids of contacts; an id `keep` stays."""
    shown = identifier(text, at_most=at_most)
    return _NUMBER.sub(lambda found: found[0] if found[0] == keep else "[id]", shown)
