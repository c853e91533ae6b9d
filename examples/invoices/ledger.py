"""What users do with invoices: may they, what changes, who hears of it. The HTTP API and the realtime handlers both end here.

A change and its events are one transaction: whatever happens to this process, there is never the one without the other.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aibos_realtime import outbox, where

from . import store
from .domain import Action, Actor, Invoice, Payment, Role


class Ledger:
    """The use cases. Each raises the errors of `domain`, and then nothing has changed, and nobody hears of it."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def list_invoices(self, actor: Actor) -> list[Invoice]:
        async with self._sessions() as session:
            return await store.list_invoices(session, actor.tenant_id)

    async def get_invoice(self, actor: Actor, invoice_id: str) -> Invoice:
        async with self._sessions() as session:
            return await store.get_invoice(session, actor.tenant_id, invoice_id)

    async def create(self, actor: Actor, *, customer: str, amount: int, currency: str) -> Invoice:
        """Everybody of the tenant hears of it; those who may approve it are asked to, but for the one who created it."""
        actor.require(Action.CREATE)
        invoice = Invoice(f"inv_{token_hex(6)}", actor.tenant_id, customer, amount, currency, created_by=actor.id)
        room = room_of(actor.tenant_id)
        async with self._sessions.begin() as session:
            await store.add_invoice(session, invoice)
            await outbox.publish(session, room, "invoice.created", to_view(invoice))
            await outbox.publish(session, room, "approval.requested", {"invoiceId": invoice.id}, filter=where(role=Role.ADMIN), exclude=[actor.id])
        return invoice

    async def approve(self, actor: Actor, invoice_id: str) -> Invoice:
        """Everybody of the tenant hears of it; whoever created the invoice also gets a notification of his own."""
        actor.require(Action.APPROVE)
        async with self._sessions.begin() as session:
            _, invoice = await store.change_invoice(session, actor.tenant_id, invoice_id, lambda invoice: invoice.approve(actor))
            await outbox.publish(session, room_of(actor.tenant_id), "invoice.approved", {"invoiceId": invoice.id, "approvedBy": actor.id})
            message = {"type": "info", "message": f"Your invoice for {invoice.customer} was approved.", "invoiceId": invoice.id}
            await outbox.publish(session, f"user:{invoice.created_by}", "notification", message)
        return invoice

    async def send(self, actor: Actor, invoice_id: str) -> Invoice:
        actor.require(Action.SEND)
        async with self._sessions.begin() as session:
            _, invoice = await store.change_invoice(session, actor.tenant_id, invoice_id, Invoice.send)
            await outbox.publish(session, room_of(actor.tenant_id), "invoice.sent", {"invoiceId": invoice.id, "sentBy": actor.id})
        return invoice

    async def pay(self, actor: Actor, invoice_id: str, payment: Payment) -> Invoice:
        """A payment that was taken already changes nothing, and nobody hears of it twice."""
        actor.require(Action.PAY)
        async with self._sessions.begin() as session:
            before, invoice = await store.change_invoice(session, actor.tenant_id, invoice_id, lambda invoice: invoice.pay(payment))
            if invoice != before:
                data = {"paymentId": payment.id, "invoiceId": invoice.id, "amount": payment.amount, "openAmount": invoice.open_amount}
                await outbox.publish(session, room_of(actor.tenant_id), "payment.processed", data | {"takenBy": actor.id})
        return invoice


def room_of(tenant_id: str) -> str:
    """The room in which a tenant hears of its invoices."""
    return f"tenant_{tenant_id}"


def to_view(invoice: Invoice) -> dict[str, Any]:
    """An invoice as it is shown outside: in answers and in events."""
    return {
        "invoiceId": invoice.id,
        "customer": invoice.customer,
        "amount": invoice.amount,
        "openAmount": invoice.open_amount,
        "currency": invoice.currency,
        "status": invoice.status.value,
        "createdBy": invoice.created_by,
    }
