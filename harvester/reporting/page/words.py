"""The words of the page: why a run ended, what a failure means, and text from outside."""

import re

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

REASONS = {
    "complete": "everything was done",
    "failures": "some campaigns failed",
    "quota_spent": "the day's quota was spent",
    "throttled": "the API asked for too long a wait",
    "sick_server": "the server failed too often",
    "set_aside": "some campaigns must wait",
    "max_requests": "--max-requests was reached",
    "max_duration": "--max-duration was reached",
    "credentials_refused": "the key or token was refused",
    "sign_in_refused": "the sign-in was refused",
    "locked": "another run took over the directory",
    "storage": "the disk refused to write",
    "directory_lost": "the directory was moved or removed",
    "bad_input": "the list of campaigns could not be read",
    "bug": "an unexpected error came up",
    "cancelled": "it was cancelled",
    "SIGINT": "Ctrl-C stopped it",
    "SIGTERM": "SIGTERM stopped it",
    "SIGHUP": "the terminal was closed (SIGHUP)",
}
"""Each follows the word because."""

_AGAIN = "Run the same command again: it tries these campaigns once more."
_ASK_OWNER = "The account has no privilege for this campaign. Ask the account's owner."
_LATER = "Events arrived faster than they could be read. Run the same command at a quieter time."
_REPORT_IT = f"{_AGAIN} If it stays, the message says what the API sent."
ADVICE = {
    "not_found": "The API does not know this campaign. Check the id and the account; then add "
    "--retry-failed to the command.",
    "not_sent": "The campaign is not sent yet. Later runs try it again.",
    "rejected": "The API refuses this request; the message says why. " + _AGAIN,
    "forbidden": _ASK_OWNER,
    "unauthorized": _ASK_OWNER,
    "redirected": "The API sent the request elsewhere, and that is not followed. Check --base-url.",
    "set_aside": "The API asked for a long wait. Run the same command later.",
    "moving": _LATER,
    "unsettled": _LATER,
    "page_cap": "The campaign has more pages than --max-pages allows. Raise it.",
    "poison_page": "One page never came. Run the same command again, with a smaller "
    "--min-page-size.",
    "looping_cursor": "The API's next link led back to an earlier page. " + _AGAIN,
    "cursor_dropped": "The API forgot its cursor twice. " + _AGAIN,
    "foreign_link": "The API's next link led to another host or report. " + _REPORT_IT,
    "bad_link": "The API's next link could not be used. " + _REPORT_IT,
    "damaged_file": "A file on the disk is damaged. Add --repair to the command.",
    "unexpected": "An unexpected error in harvester. The message names the file and line.",
}


def advice(kind: str) -> str:
    """What to do about a kind of failure."""
    return ADVICE.get(kind, _REPORT_IT)


def because(reason: str) -> str:
    """Why a run ended."""
    return REASONS.get(reason) or plain(reason.replace("_", " "), at_most=60) or "unknown"


def identifier(text: str, *, at_most: int = 60) -> str:
    """A name or id from outside, fit to be shown: short, printable, without addresses."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * at_most])
    shown = _ADDRESS.sub("[address]", " ".join(shown.split()))
    return shown if len(shown) <= at_most else f"{shown[: at_most - 1]}…"


def plain(text: str | None, *, keep: str = "", at_most: int = 160) -> str:
    """Text from outside in the same way, and without ids of contacts; an id `keep` stays."""
    shown = identifier(text or "", at_most=at_most)
    return _NUMBER.sub(lambda found: found[0] if found[0] == keep else "[id]", shown)
