"""The file of an account: private, whole or refused, and never worse than before."""

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import virtually

from harvester.config import HarvestConfig
from harvester.disk.token_store import Account, TokenStore
from harvester.errors import ConfigError, StorageError

ACCOUNT = Account(
    name="default",
    client_id="app",
    base_url="https://api.example",
    auth_url="https://sign-in.example",
    scope="campaign_data",
    access_token="canary-access",
    refresh_token="canary-refresh",
    signed_in_at=1.0,
    received_at=2.0,
    expires_at=3.5,
)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path, "default")


@pytest.fixture(autouse=True)
def _wide_open() -> Iterator[None]:
    """The umask of a careless user."""
    before = os.umask(0)
    yield
    os.umask(before)


def save(store: TokenStore, account: Account) -> None:
    async def main() -> None:
        async with store.locked(asyncio.sleep):
            with store.room() as room:
                room.save(account)

    asyncio.run(main())


def recover(store: TokenStore) -> Account | None:
    async def main() -> Account | None:
        async with store.locked(asyncio.sleep):
            return store.recover()

    return asyncio.run(main())


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_what_is_saved_is_read_and_is_private(store: TokenStore) -> None:
    """Files of 0600 in a folder of 0700, whatever the umask."""
    assert store.read() is None
    save(store, ACCOUNT)
    assert store.read() == ACCOUNT
    assert modes(store.path.parent) == {"default.json": 0o600, "default.lock": 0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_the_room_for_an_answer_is_private_from_its_first_byte(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any mode is set; and it goes when it was not needed."""
    save(store, ACCOUNT)
    monkeypatch.setattr(os, "fchmod", lambda file, mode: None)
    with store.room():
        assert set(modes(store.path.parent).values()) == {0o600}
        assert len(modes(store.path.parent)) == 3
    assert len(modes(store.path.parent)) == 2
    assert store.read() == ACCOUNT


def test_a_strict_umask_does_not_lock_us_out(store: TokenStore) -> None:
    """0777 would take even our own right to read."""
    os.umask(0o777)
    store.path.parent.mkdir()
    store.path.parent.chmod(0o700)
    with store.room() as room:
        room.save(ACCOUNT)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a b", ".hidden", "ä", "a\n", "-x", "x" * 65, "a\0"]
)
def test_a_name_that_is_not_safe_is_refused(tmp_path: Path, name: str) -> None:
    """It becomes a file's."""
    with pytest.raises(ConfigError, match="account: "):
        HarvestConfig(state_dir=tmp_path, account=name)


@pytest.mark.parametrize("name", ["default", "Acme", "jo@example.com", "a.lock", "x+1", "7"])
def test_accounts_do_not_meet(tmp_path: Path, name: str) -> None:
    """Each has files of its own."""
    other = TokenStore(tmp_path, "a")
    save(other, replace(ACCOUNT, name="a"))
    own = TokenStore(tmp_path, name)
    save(own, replace(ACCOUNT, name=name, access_token="own"))
    with own.room() as room:
        room.save(replace(ACCOUNT, name=name, access_token="own"))
    read = other.read()
    assert read is not None
    assert read.access_token == "canary-access"


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9])
def test_a_changed_byte_in_each_copy_is_seen(store: TokenStore, at: float) -> None:
    """The error names the file and what to do, and quotes nothing of it."""
    save(store, ACCOUNT)
    copies = [bytearray(copy) for copy in store.path.read_bytes().split()]
    assert len(copies) == 2
    for copy in copies:
        copy[int(at * len(copy))] ^= 1
    store.path.write_bytes(b"\n\n".join(copies))
    with pytest.raises(ConfigError, match=r"damaged.*harvester login") as wrong:
        store.read()
    assert "canary" not in str(wrong.value)


def test_no_flipped_bit_costs_a_sign_in(store: TokenStore) -> None:
    """Wherever it is in the file, the account is read as it was saved."""
    save(store, ACCOUNT)
    raw = store.path.read_bytes().rstrip() + b"\n"
    for bit in range(8 * len(raw)):
        bad = bytearray(raw)
        bad[bit // 8] ^= 1 << bit % 8
        store.path.write_bytes(bad)
        assert store.read() == ACCOUNT, bit


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\x00" * 8192, b'{"version":2}'])
def test_another_content_is_refused(store: TokenStore, content: bytes) -> None:
    """An empty file is no sign-out."""
    save(store, ACCOUNT)
    store.path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        store.read()


def test_the_file_of_another_account_is_refused(tmp_path: Path, store: TokenStore) -> None:
    """Copied, or met on a disk that does not tell A from a."""
    save(store, ACCOUNT)
    other = TokenStore(tmp_path, "other")
    other.path.write_bytes(store.path.read_bytes())
    with pytest.raises(ConfigError, match="damaged"):
        other.read()


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling", "folder"])
def test_only_a_regular_file_is_read(tmp_path: Path, store: TokenStore, kind: str) -> None:
    """A pipe would block, a link could lead anywhere."""
    save(store, ACCOUNT)
    kept = store.path.rename(tmp_path / "kept.json")
    match kind:
        case "pipe":
            os.mkfifo(store.path)
        case "link":
            store.path.symlink_to(kept)
        case "dangling":
            store.path.symlink_to(tmp_path / "nowhere")
        case _:
            store.path.mkdir()
    with pytest.raises((ConfigError, StorageError), match=r"default\.json"):
        store.read()


def test_no_repr_holds_a_token(store: TokenStore) -> None:
    """Nor a format, nor the error of a disk."""
    assert "canary" not in f"{ACCOUNT} {ACCOUNT!r} {store!r}"


def test_a_forgotten_account_leaves_no_token(store: TokenStore) -> None:
    """Also not in what a kill had left."""
    save(store, ACCOUNT)
    left = store.path.with_name(".default.0123456789abcdef.new")
    left.write_bytes(store.path.read_bytes())
    assert store.forget()
    assert list(modes(store.path.parent)) == ["default.lock"]
    assert not store.forget()


# -- what a kill leaves --------------------------------------------------------------------------


def left_over(store: TokenStore, account: Account, *, cut: int | None = None) -> Path:
    """A whole or torn answer that was not renamed."""
    before = store.path.read_bytes() if store.path.exists() else None
    save(store, account)
    raw = store.path.read_bytes()
    if before is None:
        store.path.unlink()
    else:
        store.path.write_bytes(before)
    path = store.path.with_name(".default.00112233445566ff.new")
    path.write_bytes(raw if cut is None else raw[:cut].ljust(len(raw)))
    return path


def test_a_whole_newer_answer_is_taken_up(store: TokenStore) -> None:
    """And its file goes."""
    save(store, ACCOUNT)
    newer = replace(ACCOUNT, generation=2, access_token="newer")
    left_over(store, newer)
    assert recover(store) == store.read() == newer
    assert len(modes(store.path.parent)) == 2
    assert not store.interrupted


@pytest.mark.parametrize("generation", [1, 0])
def test_an_older_answer_is_not(store: TokenStore, generation: int) -> None:
    """Left by a folder that was put back from a copy, say."""
    save(store, ACCOUNT)
    left_over(store, replace(ACCOUNT, generation=generation, access_token="older"))
    assert recover(store) == ACCOUNT
    assert len(modes(store.path.parent)) == 2


@pytest.mark.parametrize("cut", [0, 1, 50, 300])
def test_a_torn_answer_is_not(store: TokenStore, cut: int) -> None:
    """That it was there is known: an exchange was interrupted."""
    save(store, ACCOUNT)
    left_over(store, replace(ACCOUNT, generation=2), cut=cut)
    assert recover(store) == ACCOUNT
    assert store.interrupted
    assert len(modes(store.path.parent)) == 2


def test_a_damaged_file_is_healed_by_a_whole_answer(store: TokenStore) -> None:
    """And kept, as the answer is, where there is none."""
    save(store, ACCOUNT)
    newer = replace(ACCOUNT, generation=2)
    left_over(store, newer)
    store.path.write_bytes(b"damaged")
    assert recover(store) == newer
    store.path.write_bytes(b"damaged")
    left_over(store, newer, cut=100)
    with pytest.raises(ConfigError):
        recover(store)
    assert store.path.read_bytes() == b"damaged"


def test_one_holds_the_lock(tmp_path: Path) -> None:
    """Another store of the same account waits; one of another account does not."""

    async def main() -> None:
        async with TokenStore(tmp_path).locked(asyncio.sleep):
            async with TokenStore(tmp_path, "other").locked(asyncio.sleep):
                pass
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(60), TokenStore(tmp_path).locked(asyncio.sleep):
                    pass
        async with TokenStore(tmp_path).locked(asyncio.sleep):
            pass

    virtually(main)


def test_the_file_is_json_that_a_person_can_look_at(store: TokenStore) -> None:
    """Version, checksum, account, twice."""
    save(store, ACCOUNT)
    first, second = store.path.read_bytes().split()
    assert first == second
    found = json.loads(first)
    assert set(found) == {"version", "sha256", "account"}
    assert found["version"] == 1
