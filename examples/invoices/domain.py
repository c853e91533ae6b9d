"""The rules of the accounts: what an invoice is, which way it goes, who may push it on. No network, no storage, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    ACCOUNTANT = "accountant"
    VIEWER = "viewer"


class Status(StrEnum):
    DRAFT = "draft"
    APPROVED = "approved"
    SENT = "sent"
    PAID = "paid"


class Action(StrEnum):
    CREATE = "create"
    APPROVE = "approve"
    SEND = "send"
    PAY = "pay"


MAY: dict[Action, frozenset[Role]] = {
    Action.CREATE: frozenset({Role.ADMIN, Role.ACCOUNTANT}),
    Action.APPROVE: frozenset({Role.ADMIN}),
    Action.SEND: frozenset({Role.ADMIN, Role.ACCOUNTANT}),
    Action.PAY: frozenset({Role.ADMIN, Role.ACCOUNTANT}),
}
"""Which roles may do what. Everybody of a tenant may read."""


class InvoiceError(Exception):
    """Root of what can be wrong. `code` is for programs, the text for people."""

    code = "invoice_error"


class InvoiceNotFound(InvoiceError):
    """There is none of this id in the user's tenant."""

    code = "invoice_not_found"


class NotAllowed(InvoiceError):
    """The user's role does not go so far."""

    code = "not_allowed"


class Conflict(InvoiceError):
    """The invoice is not in a state for this."""

    code = "conflict"


@dataclass(frozen=True)
class Actor:
    """Who does something: a user of one tenant, in one role."""

    id: str
    tenant_id: str
    role: Role

    def require(self, action: Action) -> None:
        """Raises `NotAllowed`."""
        if self.role not in MAY[action]:
            raise NotAllowed(f"The role {self.role} may not {action} an invoice.")


@dataclass(frozen=True)
class Payment:
    """Money received. `id`: unique within its invoice. `amount`: in the smallest unit of the invoice's currency."""

    id: str
    amount: int


@dataclass(frozen=True)
class Invoice:
    """draft → approved → sent → paid. `amount`: in the smallest unit of the currency. Every step returns a new value, or raises `Conflict`."""

    id: str
    tenant_id: str
    customer: str
    amount: int
    currency: str
    created_by: str
    status: Status = Status.DRAFT
    payments: tuple[Payment, ...] = ()

    @property
    def open_amount(self) -> int:
        return self.amount - sum(payment.amount for payment in self.payments)

    def approve(self, by: Actor) -> Invoice:
        """Raises `NotAllowed` for the one who created it: four eyes."""
        if by.id == self.created_by:
            raise NotAllowed("Nobody approves an invoice of his own.")
        return self._step(Status.DRAFT, Status.APPROVED)

    def send(self) -> Invoice:
        return self._step(Status.APPROVED, Status.SENT)

    def pay(self, payment: Payment) -> Invoice:
        """Once the open amount is 0 it is paid. The same payment twice is one payment; one id with two amounts is a `Conflict`."""
        if payment in self.payments:
            return self
        if any(known.id == payment.id for known in self.payments):
            raise Conflict("A payment of this id was taken with another amount.")
        if self.status is not Status.SENT:
            raise Conflict(f"An invoice that is {self.status} takes no payment.")
        if payment.amount > self.open_amount:
            raise Conflict(f"The payment is larger than the open amount, {self.open_amount}.")
        status = Status.PAID if payment.amount == self.open_amount else self.status
        return replace(self, status=status, payments=(*self.payments, payment))

    def _step(self, expected: Status, following: Status) -> Invoice:
        if self.status is not expected:
            raise Conflict(f"An invoice that is {self.status} cannot become {following}.")
        return replace(self, status=following)
