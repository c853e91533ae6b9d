"""Where users and invoices are kept: two tables, in the database in which the realtime server keeps its events. No rules, and no events.

Everything happens in a session that the caller has begun, and will commit.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from .domain import Actor, Invoice, InvoiceNotFound, Payment, Role, Status

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("role", String, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("password_hash", LargeBinary, nullable=False),
)

invoices = Table(
    "invoices",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, unique=True, nullable=False),
    Column("tenant_id", String, index=True, nullable=False),
    Column("customer", String, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("status", String, nullable=False),
    Column("payments", JSON, nullable=False),
    Column("changes", Integer, nullable=False, default=0),
)


@dataclass(frozen=True)
class Account:
    """Somebody who can log in. The password is kept as a salted hash."""

    actor: Actor
    salt: bytes
    password_hash: bytes

    @classmethod
    def create(cls, actor: Actor, password: str) -> Account:
        salt = secrets.token_bytes(16)
        return cls(actor, salt, _hash(password, salt))

    def has_password(self, password: str) -> bool:
        """Takes some milliseconds of CPU, on purpose."""
        return hmac.compare_digest(self.password_hash, _hash(password, self.salt))


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**12, r=8, p=1)


async def find_account(session: AsyncSession, user_id: str) -> Account | None:
    row = (await session.execute(select(accounts).where(accounts.c.id == user_id))).one_or_none()
    return Account(Actor(row.id, row.tenant_id, Role(row.role)), row.salt, row.password_hash) if row else None


async def add_invoice(session: AsyncSession, invoice: Invoice) -> None:
    await session.execute(invoices.insert().values(_to_row(invoice)))


async def list_invoices(session: AsyncSession, tenant_id: str) -> list[Invoice]:
    """The tenant's, oldest first."""
    rows = await session.execute(select(invoices).where(invoices.c.tenant_id == tenant_id).order_by(invoices.c.number))
    return [_to_invoice(row) for row in rows]


async def get_invoice(session: AsyncSession, tenant_id: str, invoice_id: str) -> Invoice:
    """Raises `InvoiceNotFound`, also for another tenant's."""
    return _found(await session.execute(select(invoices).where(invoices.c.tenant_id == tenant_id, invoices.c.id == invoice_id)))


async def change_invoice(session: AsyncSession, tenant_id: str, invoice_id: str, change: Callable[[Invoice], Invoice]) -> tuple[Invoice, Invoice]:
    """The invoice before and after `change`. Between the two, and until the session commits, no other change can come.

    Raises `InvoiceNotFound`, and what `change` raises.
    """
    one = update(invoices).where(invoices.c.tenant_id == tenant_id, invoices.c.id == invoice_id)
    # Reading it by writing it: whoever else wants to change it waits from here on.
    before = _found(await session.execute(one.values(changes=invoices.c.changes + 1).returning(invoices)))
    after = change(before)
    await session.execute(one.values(_to_row(after)))
    return before, after


def _found(rows: Any) -> Invoice:
    row = rows.one_or_none()
    if row is None:
        raise InvoiceNotFound("There is no such invoice.")
    return _to_invoice(row)


def _to_row(invoice: Invoice) -> dict[str, Any]:
    return vars(invoice) | {"payments": [[payment.id, payment.amount] for payment in invoice.payments]}


def _to_invoice(row: Any) -> Invoice:
    payments = tuple(Payment(id, amount) for id, amount in row.payments)
    return Invoice(row.id, row.tenant_id, row.customer, row.amount, row.currency, row.created_by, Status(row.status), payments)


SEED_PASSWORD = "only-for-trying-out"
"""Of every user of the seed."""

SEED = (
    Actor("ann", "123", Role.ADMIN),
    Actor("ben", "123", Role.ACCOUNTANT),
    Actor("eve", "123", Role.VIEWER),
    Actor("uma", "456", Role.ADMIN),
    Actor("vic", "456", Role.ACCOUNTANT),
)


async def seed(session: AsyncSession) -> None:
    """The tables, and in them two tenants, 123 and 456, and their users; what is there already stays."""
    await (await session.connection()).run_sync(metadata.create_all)
    for actor in SEED:
        if await find_account(session, actor.id) is None:
            account = Account.create(actor, SEED_PASSWORD)
            await session.execute(accounts.insert().values(vars(actor) | {"salt": account.salt, "password_hash": account.password_hash}))
