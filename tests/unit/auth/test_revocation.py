"""What was taken back stays so for as long as a token can live, and memory stays bounded."""

from __future__ import annotations

from aibos_realtime.auth.revocation import Revocations
from aibos_realtime.auth.user import Identity, User
from aibos_realtime.backends.revocations import Revoked


def identity(user_id: str = "a", issued_at: float | None = 100.0, token_id: str | None = None) -> Identity:
    return Identity(User(user_id), 1e9, issued_at, token_id)


def test_tokens_of_a_user_up_to_the_revocation() -> None:
    revocations = Revocations(memory=1000)
    revocations.revoke_user("a", 100.5, 100.5)
    assert revocations.is_revoked(identity(issued_at=100.0))
    assert revocations.is_revoked(identity(issued_at=100.5))
    assert revocations.is_revoked(identity(issued_at=None))
    assert not revocations.is_revoked(identity(issued_at=100.6))
    assert not revocations.is_revoked(identity("b"))


def test_one_token() -> None:
    revocations = Revocations(memory=1000)
    revocations.revoke_token("t", 100, 100)
    assert revocations.is_revoked(identity(issued_at=200, token_id="t"))
    assert not revocations.is_revoked(identity(token_id="u"))
    assert not revocations.is_revoked(identity(token_id=None))


def test_an_older_revocation_does_not_weaken_a_newer_one() -> None:
    revocations = Revocations(memory=1000)
    revocations.revoke_user("a", 100, 100)
    revocations.revoke_user("a", 50, 101)
    assert revocations.is_revoked(identity(issued_at=99))


def test_what_no_living_token_can_need_is_forgotten() -> None:
    revocations = Revocations(memory=1000)
    revocations.revoke_user("a", 100, 100)
    revocations.revoke_token("t", 100, 100)
    revocations.revoke_user("b", 1099, 1099)
    assert len(revocations) == 3
    revocations.revoke_user("c", 1101, 1101)
    assert len(revocations) == 2
    assert revocations.is_revoked(identity("b", 1000))


def test_beyond_the_limit_it_refuses_too_much_and_never_too_little() -> None:
    revocations = Revocations(memory=3000, limit=2)
    revocations.revoke_user("a", 100, 100)
    revocations.revoke_token("t", 101, 101)
    revocations.revoke_user("b", 102, 102)
    revocations.revoke_user("c", 103, 103)
    assert len(revocations) == 2
    assert revocations.is_revoked(identity("a", 100))
    assert revocations.is_revoked(identity("z", 101, "t"))
    assert revocations.is_revoked(identity("z", None))
    assert revocations.is_revoked(identity("b", 102))
    assert not revocations.is_revoked(identity("z", 101.5))
    revocations.revoke_user("d", 2000, 2000)
    assert revocations.is_revoked(identity("z", 102))
    revocations.revoke_user("d", 3104, 3104)
    assert not revocations.is_revoked(identity("z", 102)), "the cut-off has outlived every token that it was for"


def test_everybodys_tokens_up_to_a_time() -> None:
    revocations = Revocations(memory=1000)
    revocations.revoke_user("a", 300, 300)
    revocations.revoke_all(200)
    revocations.revoke_all(100)
    assert revocations.is_revoked(identity("b", issued_at=200)) and not revocations.is_revoked(identity("b", issued_at=201))
    assert revocations.is_revoked(identity("a", issued_at=250))


def test_what_is_revoked_can_be_told() -> None:
    revocations = Revocations(memory=1000)
    revocations.revoke_user("a", 100, 100)
    revocations.revoke_token("t", 101, 101)
    revocations.revoke_all(50)
    assert list(revocations) == [Revoked("user", "a", 100), Revoked("token", "t", 101), Revoked("all", "", 50)]
