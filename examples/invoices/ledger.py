"""What users do with invoices: may they, what changes, who hears of it. The HTTP API and the realtime handlers both end here.

The event is published after the change is stored. A process that dies between the two leaves a change without an event: clients that reload see it.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from aibos_realtime import EventBroadcaster, where

from .domain import Action, Actor, Invoice, Payment, Role
from .store import Store


class Ledger:
    """The use cases. Each raises the errors of `domain`."""

    def __init__(self, store: Store, broadcaster: EventBroadcaster) -> None:
        self._store = store
        self._broadcaster = broadcaster

    async def list_invoices(self, actor: Actor) -> list[Invoice]:
        return await self._store.list_invoices(actor.tenant_id)

    async def get_invoice(self, actor: Actor, invoice_id: str) -> Invoice:
        return await self._store.get_invoice(actor.tenant_id, invoice_id)

    async def create(self, actor: Actor, *, customer: str, amount: int, currency: str) -> Invoice:
        """Everybody of the tenant hears of it; those who may approve it are asked to, but for the one who created it."""
        actor.require(Action.CREATE)
        invoice = Invoice(f"inv_{token_hex(6)}", actor.tenant_id, customer, amount, currency, created_by=actor.id)
        await self._store.add_invoice(invoice)
        await self._publish("invoice.created", invoice, to_view(invoice), key=invoice.id)
        await self._broadcaster.broadcast_to_room(
            room_of(invoice.tenant_id), "approval.requested", {"invoiceId": invoice.id}, filter=where(role=Role.ADMIN), exclude=[actor.id]
        )
        return invoice

    async def approve(self, actor: Actor, invoice_id: str) -> Invoice:
        """Everybody of the tenant hears of it; whoever created the invoice also gets a notification of his own."""
        actor.require(Action.APPROVE)
        _, invoice = await self._store.change_invoice(actor.tenant_id, invoice_id, lambda invoice: invoice.approve(actor))
        await self._publish("invoice.approved", invoice, {"invoiceId": invoice.id, "approvedBy": actor.id}, key=invoice.id)
        message = {"type": "info", "message": f"Your invoice for {invoice.customer} was approved.", "invoiceId": invoice.id}
        await self._broadcaster.broadcast_to_user(invoice.created_by, "notification", message)
        return invoice

    async def send(self, actor: Actor, invoice_id: str) -> Invoice:
        actor.require(Action.SEND)
        _, invoice = await self._store.change_invoice(actor.tenant_id, invoice_id, Invoice.send)
        await self._publish("invoice.sent", invoice, {"invoiceId": invoice.id}, key=invoice.id)
        return invoice

    async def pay(self, actor: Actor, invoice_id: str, payment: Payment) -> Invoice:
        """A payment that was taken already changes nothing, and nobody hears of it twice."""
        actor.require(Action.PAY)
        before, invoice = await self._store.change_invoice(actor.tenant_id, invoice_id, lambda invoice: invoice.pay(payment))
        if invoice != before:
            data = {"paymentId": payment.id, "invoiceId": invoice.id, "amount": payment.amount, "openAmount": invoice.open_amount}
            await self._publish("payment.processed", invoice, data, key=f"{invoice.id}:{payment.id}")
        return invoice

    async def _publish(self, event: str, invoice: Invoice, data: dict[str, Any], *, key: str) -> None:
        await self._broadcaster.broadcast_to_room(room_of(invoice.tenant_id), event, data, idempotency_key=f"{event}:{key}")


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
