"""`harvester login` and `harvester logout`: the sign-in of v3, and its end."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from harvester.api.oauth import DeviceCode
from harvester.cli.command import Command
from harvester.cli.options import proxy_for, setting_options
from harvester.config import HarvestConfig
from harvester.device_flow import sign_in, sign_out
from harvester.disk.token_store import Account
from harvester.request.token_keeper import account_options


@click.command(cls=Command)
@setting_options("client_id", "account", "auth_url", "base_url", "state_dir")
def login(**given: Any) -> int:
    """Sign in to v3: open the link, confirm the code, come back.

    \b
    The client id is the API key of an app in the developer portal (My
    Applications) whose OAuth2 setting is Device Flow. It works over ssh: any
    browser on any machine will do.
    """
    key = os.environ.get("HARVESTER_API_KEY", "").strip() or None
    config = HarvestConfig(api="v3", api_key=key, **given)
    config = replace(config, proxy=proxy_for(config.auth_origin))
    account = asyncio.run(sign_in(config, show=show_code))
    _tell(account)
    return 0


@click.command(cls=Command)
@setting_options("account", "state_dir")
def logout(**given: Any) -> int:
    """Forget an account's tokens."""
    config = HarvestConfig(api="v3", **given)
    removed: Path | None = asyncio.run(sign_out(config))
    if removed is None:
        _say(f"account {config.account!r} is not signed in; nothing to do")
    else:
        _say(f"account {config.account!r} is signed out: its tokens are removed from {removed}")
    return 0


def show_code(code: DeviceCode) -> None:
    """Tell a person what to do."""
    _say(f"Open this link in a browser, on any machine:\n\n    {code.link}\n")
    what = "Confirm that it shows the code" if code.code_in_link else "Enter the code"
    _say(f"{what}  {code.user_code}")
    _say(f"Waiting up to {code.expires_in_s / 60:.0f} minutes (Ctrl-C stops) ...")


def _tell(account: Account) -> None:
    _say(f"Signed in as account {account.name!r}.")
    if account.refresh_token is None:
        hours = (account.expires_at - account.received_at) / 3600
        _say(
            f"The sign-in lasts {hours:.0f} hours only: the app gave no refresh token. To be "
            "signed in for longer, allow refresh tokens in the app's settings and log in again."
        )
    which = account_options(account.name, account.base_url, account.auth_url)
    _say(f"Next: harvester check{which}")


def _say(text: str) -> None:
    click.echo(text, err=True)
