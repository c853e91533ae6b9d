"""Where users and invoices are kept: in memory, for as long as the process lives. No rules, and no events."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from .domain import Actor, Invoice, InvoiceNotFound, Role


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


class Store:
    """The calls are those of a database: async, by tenant, and `change_invoice` reads, changes and writes as one."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._invoices: dict[tuple[str, str], Invoice] = {}

    async def add_account(self, account: Account) -> None:
        self._accounts[account.actor.id] = account

    async def find_account(self, user_id: str) -> Account | None:
        return self._accounts.get(user_id)

    async def add_invoice(self, invoice: Invoice) -> None:
        self._invoices[invoice.tenant_id, invoice.id] = invoice

    async def list_invoices(self, tenant_id: str) -> list[Invoice]:
        """The tenant's, oldest first."""
        return [invoice for (owner, _), invoice in self._invoices.items() if owner == tenant_id]

    async def get_invoice(self, tenant_id: str, invoice_id: str) -> Invoice:
        """Raises `InvoiceNotFound`, also for another tenant's."""
        invoice = self._invoices.get((tenant_id, invoice_id))
        if invoice is None:
            raise InvoiceNotFound("There is no such invoice.")
        return invoice

    async def change_invoice(self, tenant_id: str, invoice_id: str, change: Callable[[Invoice], Invoice]) -> tuple[Invoice, Invoice]:
        """The invoice before and after `change`, in one step that no other change can come between. What `change` raises changes nothing."""
        before = await self.get_invoice(tenant_id, invoice_id)
        after = self._invoices[tenant_id, invoice_id] = change(before)
        return before, after


SEED_PASSWORD = "only-for-trying-out"
"""Of every user of the seed."""

SEED = (
    Actor("ann", "123", Role.ADMIN),
    Actor("ben", "123", Role.ACCOUNTANT),
    Actor("eve", "123", Role.VIEWER),
    Actor("uma", "456", Role.ADMIN),
    Actor("vic", "456", Role.ACCOUNTANT),
)


async def seed(store: Store) -> None:
    """Two tenants, 123 and 456, and their users."""
    for actor in SEED:
        await store.add_account(Account.create(actor, SEED_PASSWORD))
