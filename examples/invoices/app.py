"""The accounting service: an HTTP API, a realtime server mounted beside it, both with the same tokens, and the page. See README.md.

uvicorn examples.invoices.app:app
aibos-realtime serve examples.invoices.app:app     (the same, with the fast path for WebSockets)
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from msgspec import Struct
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from aibos_realtime import AuthenticationError, PermissionDenied, RealtimeError, RealtimeServer, Socket, User

from .domain import Actor, Conflict, InvoiceError, InvoiceNotFound, NotAllowed, Payment, Role
from .ledger import Ledger, room_of, to_view
from .pages import Pages
from .store import find_account, seed

STATUS: dict[type[InvoiceError], int] = {InvoiceNotFound: 404, NotAllowed: 403, Conflict: 409}

bearer = HTTPBearer(auto_error=False)
routes = APIRouter()


def create_app(*, database: str | Path = "invoices.db", jwt_secret: str | None = None) -> FastAPI:
    """The service on an SQLite file, which gets the seed's users.

    `jwt_secret`: default JWT_SECRET, else a random one, which ends with the process.
    """
    server = RealtimeServer(
        authentication={"jwt_secret": jwt_secret or os.environ.get("JWT_SECRET") or secrets.token_urlsafe(32), "expires_in": "8h"},
        # Clients listen; what happened is said by the server alone.
        authorization={"permissions": {"tenant_{tenant_id}": ["read"]}},
        # The same file as the invoices': so a change and its events can be one transaction.
        persistence={"database": {"url": f"sqlite:///{database}"}},
    )
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
    sessions = async_sessionmaker(engine)
    ledger = Ledger(sessions)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with sessions.begin() as session:
                await seed(session)
            async with server.lifespan(app):
                yield
        finally:
            await engine.dispose()

    app = FastAPI(title="Invoices", lifespan=lifespan)
    app.state.server, app.state.sessions, app.state.ledger = server, sessions, ledger
    app.include_router(routes)
    app.exception_handler(InvoiceError)(_answer_error)
    app.mount("/realtime", server.asgi())
    app.mount("/", Pages())
    add_handlers(server, ledger)
    return app


# — realtime —


class ApproveInvoice(Struct, rename="camel"):
    """Data of `invoice.approve`."""

    invoice_id: str


def add_handlers(server: RealtimeServer, ledger: Ledger) -> None:
    """What clients may ask for over their connection."""

    @server.event("invoice.approve", payload=ApproveInvoice)
    async def approve(socket: Socket, command: ApproveInvoice) -> dict[str, Any]:
        try:
            invoice = await ledger.approve(to_actor(socket.user), command.invoice_id)
        except NotAllowed as error:
            raise PermissionDenied(str(error), resource="invoice", action="approve") from None
        except InvoiceError as error:
            raise RealtimeError(str(error), code=error.code) from None
        return to_view(invoice)


# — HTTP —


class LogIn(BaseModel):
    user: str
    password: str


class NewInvoice(BaseModel):
    customer: str = Field(min_length=1, max_length=200)
    amount: int = Field(gt=0, le=10**12, description="In the smallest unit of the currency.")
    currency: str = Field(pattern=r"^[A-Z]{3}$")


class NewPayment(BaseModel):
    id: str = Field(min_length=1, max_length=64, description="Chosen by the caller: repeating it is harmless.")
    amount: int = Field(gt=0)


async def present_actor(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Actor:
    """The user of the request's token."""
    try:
        identity = await request.app.state.server.auth.identify(credentials.credentials if credentials else "")
        return to_actor(identity.user)
    except AuthenticationError:
        raise HTTPException(401, "Log in first: POST /login gives a token.", {"WWW-Authenticate": "Bearer"}) from None


def present_ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


ActorNow = Annotated[Actor, Depends(present_actor)]
LedgerNow = Annotated[Ledger, Depends(present_ledger)]


@routes.post("/login")
async def log_in(given: LogIn, request: Request) -> dict[str, str]:
    """A token for both the API and `/realtime`, and the room to join."""
    async with request.app.state.sessions() as session:
        account = await find_account(session, given.user)
    if account is None or not await asyncio.to_thread(account.has_password, given.password):
        raise HTTPException(401, "The user or the password is wrong.")
    actor = account.actor
    token = request.app.state.server.auth.issue(user_id=actor.id, role=actor.role, tenant_id=actor.tenant_id)
    return {"token": token, "room": room_of(actor.tenant_id), "role": actor.role}


@routes.get("/invoices")
async def list_invoices(actor: ActorNow, ledger: LedgerNow) -> list[dict[str, Any]]:
    return [to_view(invoice) for invoice in await ledger.list_invoices(actor)]


@routes.get("/invoices/{invoice_id}")
async def get_invoice(invoice_id: str, actor: ActorNow, ledger: LedgerNow) -> dict[str, Any]:
    return to_view(await ledger.get_invoice(actor, invoice_id))


@routes.post("/invoices", status_code=201)
async def create_invoice(given: NewInvoice, actor: ActorNow, ledger: LedgerNow) -> dict[str, Any]:
    return to_view(await ledger.create(actor, customer=given.customer, amount=given.amount, currency=given.currency))


@routes.post("/invoices/{invoice_id}/approve")
async def approve_invoice(invoice_id: str, actor: ActorNow, ledger: LedgerNow) -> dict[str, Any]:
    return to_view(await ledger.approve(actor, invoice_id))


@routes.post("/invoices/{invoice_id}/send")
async def send_invoice(invoice_id: str, actor: ActorNow, ledger: LedgerNow) -> dict[str, Any]:
    return to_view(await ledger.send(actor, invoice_id))


@routes.post("/invoices/{invoice_id}/payments", status_code=201)
async def add_payment(invoice_id: str, given: NewPayment, actor: ActorNow, ledger: LedgerNow) -> dict[str, Any]:
    return to_view(await ledger.pay(actor, invoice_id, Payment(given.id, given.amount)))


async def _answer_error(request: Request, error: InvoiceError) -> JSONResponse:
    return JSONResponse({"code": error.code, "message": str(error)}, STATUS[type(error)])


def to_actor(user: User | None) -> Actor:
    """The user of a token as one of this service's. Raises `AuthenticationError` for a token without a tenant, or with a role unknown here."""
    if user is None or user.tenant_id is None or user.role not in list(Role):
        raise AuthenticationError
    return Actor(user.id, user.tenant_id, Role(user.role))


app = create_app()
