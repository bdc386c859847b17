"""The end of a run as a person reads it: a table, and the next step, which works."""

import shlex
import sys
from collections.abc import Iterator
from textwrap import shorten

from harvester.cli.flags import by_flags
from harvester.config import HarvestConfig
from harvester.errors import StopRun
from harvester.input.queue import REFUSED_FOR_GOOD
from harvester.reporting.counters import Counters
from harvester.reporting.lines import count, length_of_time, size
from harvester.reporting.summary import EXIT_CODES, HarvestReport

_MOST_KINDS = 5
_LONGEST_COMMAND = 160
_SIGN_IN = (
    "sign in again (harvester login), or give a valid HARVESTER_API_KEY and HARVESTER_ACCESS_TOKEN"
)
NEXT_STEP = {
    "bug": "report it, with what -v -v shows",
    "storage": "make that path usable (writable, with room, a file of its kind); then {command}",
    "directory_lost": "put the directory back, then {command}; without it, the same starts over",
    "bad_input": "correct the ids; then {command}",
    "credentials_refused": "{sign_in}; then {command}",
    "locked": "wait for the other run or stop it; then {command}",
    "quota_spent": "from then on {command}",
    "throttled": "from then on {command}",
    "sick_server": "when the API works again {command}",
    "set_aside": "from then on {command}",
}
"""The next step by the reason of the end; for a reason that is not here, the same command."""


def closing_lines(
    report: HarvestReport, config: HarvestConfig, counters: Counters
) -> Iterator[str]:
    """What was done, what failed and why, and how to go on."""
    campaigns, requests, quota = report.campaigns, report.requests, report.quota
    others = {name: getattr(campaigns, name) for name in ("failed", "partial", "pending")}
    yield ""
    yield _row(
        "campaigns",
        f"{campaigns.complete:,} of {campaigns.total:,} complete"
        + "".join(f", {number:,} {name}" for name, number in others.items() if number),
    )
    yield _row(
        "this run",
        f"{count(report.pages, 'page')}, {count(report.rows, 'record')}, {size(report.bytes)} "
        f"in {length_of_time(report.elapsed_s)}",
    )
    yield _row(
        "requests",
        f"{requests.sent:,} sent, {requests.retried:,} of them repeated, "
        f"{requests.throttled:,} throttled"
        + (f"; today {quota.used_today:,} of {quota.limit:,}" if quota.limit else ""),
    )
    yield _row("files", str(config.directory))
    for kind, number in sorted(counters.failures.items())[:_MOST_KINDS]:
        example = counters.examples.get(kind)
        shown = f", as {example.target}: {shorten(example.message, 100)}" if example else ""
        yield _row("failed", f"{number:,} {kind}{shown}")
    if campaigns.failed:
        yield _row("all errors", str(report.errors))
    if counters.unreconciled:
        yield _row(
            "summary",
            f"{counters.unreconciled:,} of the API's own counts differ, as for "
            f"{counters.unreconciled_example}: see reconciled in manifest.ndjson",
        )
    if report.exit_code:
        why = report.message or report.reason.replace("_", " ")
        if report.reason == "failures":
            why = f"{count(campaigns.failed, 'campaign')} failed"
        yield _row("ended by", why)
        if report.resume_at is not None and report.resume_at > report.finished_at:
            yield _row("not before", f"{report.resume_at:%a %d %b %Y, %H:%M:%S} UTC")
        step = next_step(
            report.reason,
            same_command(config),
            sign_in=_sign_in(config),
            only_for_good=set(counters.failures) == {REFUSED_FOR_GOOD},
        )
        yield _row("next step", step)


def next_step(
    reason: str,
    command: str,
    *,
    sign_in: str = _SIGN_IN,
    only_for_good: bool = False,
) -> str:
    """What to do after an end for this reason. Failures that are `only_for_good` are not tried
    again by the same command."""
    if reason == "failures" and only_for_good:
        more = "" if "--retry-failed" in command else " --retry-failed"
        return f"correct these ids, or ask for them once more: {command}{more}"
    step = NEXT_STEP.get(reason, "{command}")
    return step.format(command=command, sign_in=sign_in)


def without_report(order: StopRun) -> tuple[str, int]:
    """An end without a report: what to say, with the next step, and the exit code."""
    said = str(order)
    if order.resume_at is not None:
        said += f"; not before {order.resume_at:%a %d %b %Y, %H:%M:%S} UTC"
    if order.reason == "locked" or "harvester login" in said:  # the message has the step
        said += ", then the same command"
    else:
        said += f"; next step: {next_step(order.reason, 'the same command')}"
    return by_flags(said), EXIT_CODES.get(order.reason, 1)


def _sign_in(config: HarvestConfig) -> str:
    """How to come to credentials that are good, where those of `config` were refused."""
    key = ["HARVESTER_API_KEY"] if config.api == "v2" else []
    given = {
        "--token-command": config.token_command,
        "--access-token-file": config.access_token_file,
        "HARVESTER_ACCESS_TOKEN": config.access_token,
    }
    own = next((name for name, value in given.items() if value), None)
    valid = f"give a valid {' and '.join([*key, own or 'HARVESTER_ACCESS_TOKEN'])}"
    if key:
        return valid
    from harvester.request.token_keeper import account_options  # a run that ends well needs none

    where = account_options(config.account, config.origin, config.auth_origin)
    login = f"harvester login{where}"
    return f"{valid}, or leave it out ({login})" if own else f"sign in again ({login})"


def same_command(config: HarvestConfig) -> str:
    """The command of this process, without the option that would remove what is there."""
    arguments = [word for word in sys.argv[1:] if word != "--fresh"]
    command = shlex.join(["harvester", *arguments])
    shown = len(command) <= _LONGEST_COMMAND
    if not shown:
        command = "the same command"
    if config.fresh and not (shown and "--fresh" in sys.argv):
        command += ", without --fresh (HARVESTER_FRESH, fresh)"
    return command


def _row(name: str, text: str) -> str:
    return f"{name:>10}  {by_flags(text)}"
