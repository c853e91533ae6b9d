// The page: log in, join the tenant's room, and show what is and what happens.
//
// The list comes from the HTTP API, and every change after it over the realtime connection. The client brings every event exactly once and in order,
// over reconnects and restarts of the server: there is nothing here that polls, and nothing that catches up.

import { RealtimeClient } from "./realtime/client.js";
import { Api, ApiError } from "./api.js";
import { Book } from "./book.js";
import { $, ask, editMoney, readMoney, showBook, showConnection, showError, showFeed, showInvoices, showLogin, showMoney, showPeople, toast } from "./view.js";
import { actorOf, mayCreate, stepsOf, tell } from "./words.js";

const EVENTS = ["invoice.created", "invoice.approved", "invoice.sent", "payment.processed"];
const SEED_PASSWORD = "only-for-trying-out"; // what the buttons of the log-in fill in
const FEED = 100;

/** One log-in: from `start` to `end`. */
class Desk {
  #book = new Book();
  #feed = new Map();
  #people = new Set();
  #lostAt;

  constructor(me) {
    this.me = me;
    this.api = new Api(me.token);
    const url = new URL("realtime/ws", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.client = new RealtimeClient({ url: url.href, token: me.token, reconnectInterval: 2000 });
    for (const name of EVENTS) this.client.on(name, (data, event) => this.#take(name, data, event));
    this.client.on("approval.requested", ({ invoiceId }) => this.#askForApproval(invoiceId));
    this.client.on("notification", ({ message, invoiceId }) => toast(message, { about: invoiceId }));
    this.client.on("user.joined", ({ userId }) => this.#setPeople([...this.#people, userId]));
    this.client.on("user.left", ({ userId }) => this.#setPeople([...this.#people].filter((user) => user !== userId)));
    this.client.on("connect", () => this.#connected());
    this.client.on("disconnect", () => this.#disconnected());
    this.client.on("error", (error) => this.#failed(error));
    this.client.on("resync", () => this.#load()); // the events in between cannot be had: the list can
    this.client.on("room-closed", () => end("You were removed from this tenant's room. Log in again."));
  }

  async start() {
    showBook(this.me, mayCreate(this.me));
    showConnection("connecting");
    this.#draw();
    await this.client.connect();
    const { members } = await this.client.joinRoom(this.me.room, { presence: true });
    this.#setPeople(members.map(({ userId }) => userId));
    await this.#load();
  }

  close() {
    return this.client.close();
  }

  /** What there is. Events that come meanwhile are in it, or follow it, or both: the book takes either. */
  async #load() {
    const [invoices, { events }] = await Promise.all([this.api.invoices(), this.client.history(this.me.room, { limit: FEED })]);
    this.#book.load(invoices);
    for (const event of events) this.#note(event);
    this.#draw();
  }

  #take(name, data, event) {
    const invoice = this.#book.apply(name, data);
    this.#note(event);
    this.#draw(data.invoiceId);
    if (actorOf(name, data) !== this.me.user) toast(tell(name, data, invoice, this.me.user), { about: data.invoiceId });
  }

  #note({ id, event: name, data, epoch, offset, timestamp }) {
    if (EVENTS.includes(name)) this.#feed.set(id, { id, name, data, epoch, offset, at: new Date(timestamp) });
  }

  #draw(changed) {
    showInvoices(this.#book, (invoice) => stepsOf(invoice, this.me), (step, invoice, button) => this.#step(step, invoice, button), changed);
    const newest = [...this.#feed.values()].sort((a, b) => (a.epoch === b.epoch ? b.offset - a.offset : b.at - a.at)).slice(0, FEED);
    showFeed(newest.map(({ id, name, data, at }) => ({ id, at, text: tell(name, data, this.#book.get(data.invoiceId), this.me.user) })));
  }

  #askForApproval(invoiceId) {
    const invoice = this.#book.get(invoiceId);
    if (invoice?.status !== "draft") return;
    const text = `${invoice.createdBy} asks you to approve the invoice for ${invoice.customer}: ${showMoney(invoice.amount, invoice.currency)}`;
    toast(text, { about: invoiceId, action: ["Approve", (button) => this.#step("approve", invoice, button)] });
  }

  #setPeople(users) {
    this.#people = new Set(users);
    showPeople([...this.#people].sort(), this.me.user);
  }

  // — what the user does —

  async #step(step, invoice, button) {
    if (step === "pay") return this.#askForPayment(invoice);
    button.disabled = true;
    try {
      const { invoiceId } = invoice;
      // Either way will do: the one is a request over the realtime connection, with the handler's answer; the other is HTTP.
      const after = step === "approve" ? await this.client.sendMessage("invoice.approve", { invoiceId }) : await this.api.send(invoiceId);
      this.#changed(after);
    } catch (error) {
      this.#refused(error);
    } finally {
      button.disabled = false;
    }
  }

  #askForPayment({ invoiceId, customer, openAmount, currency }) {
    const id = newId(); // the same for every attempt: pressing twice is one payment
    ask("pay", (fields) => {
      $("pay-of").textContent = `${customer}: ${showMoney(openAmount, currency)} are open.`;
      fields.amount.value = editMoney(openAmount, currency);
    }, async (fields) => {
      this.#changed(await this.api.pay(invoiceId, { id, amount: readMoney(fields.amount.value, currency) }));
    });
  }

  askForInvoice() {
    ask("new", () => {}, async ({ customer, amount, currency }) => {
      this.#changed(await this.api.create({ customer: customer.value.trim(), amount: readMoney(amount.value, currency.value), currency: currency.value }));
    });
  }

  #changed(invoice) {
    this.#book.merge(invoice);
    this.#draw(invoice.invoiceId);
  }

  #refused(error) {
    if (error.code === "log_in") return end("Your log-in has ended. Log in again.");
    toast(error.message, { kind: "error" });
  }

  // — the connection —

  async #connected() {
    const wasAway = this.#lostAt !== undefined;
    this.#lostAt = undefined;
    showConnection("connected");
    // Who came and went is told to those who are there, and not afterwards.
    if (wasAway) this.#setPeople((await this.client.presence(this.me.room)).map(({ userId }) => userId));
  }

  #disconnected() {
    this.#lostAt ??= new Date();
    showConnection(this.client.state, this.#lostAt);
  }

  #failed(error) {
    if (error.name === "AuthenticationError") return end("Your log-in has ended. Log in again.");
    if (this.client.state === "reconnecting") showConnection("reconnecting", (this.#lostAt ??= new Date()));
  }
}

/** Not `randomUUID`, which a page that came over plain HTTP from another machine does not have. */
function newId() {
  return `pay_${Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// — log-in: in this window alone, until it is closed —

let desk;

async function begin(me) {
  desk = new Desk(me);
  try {
    await desk.start();
  } catch (error) {
    if (error.name === "AuthenticationError" || error.code === "log_in") return end("Your log-in has ended. Log in again.");
    toast(error.message, { kind: "error" });
  }
}

function end(message) {
  sessionStorage.removeItem("me");
  desk?.close();
  desk = undefined;
  showLogin(message);
}

async function logIn(user, password) {
  try {
    const { token, room, role } = await Api.logIn(user, password);
    const me = { user, token, room, role, tenant: room.replace("tenant_", "") };
    sessionStorage.setItem("me", JSON.stringify(me));
    await begin(me);
  } catch (error) {
    showError($("login-error"), error instanceof ApiError && error.code === "unreachable" ? "The server does not answer. Is it running?" : error.message);
  }
}

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { user, password } = event.target.elements;
  logIn(user.value.trim(), password.value);
});
for (const button of document.querySelectorAll("[data-user]")) button.addEventListener("click", () => logIn(button.dataset.user, SEED_PASSWORD));
$("log-out").addEventListener("click", () => end());
$("new").addEventListener("click", () => desk.askForInvoice());

const kept = sessionStorage.getItem("me");
if (kept) begin(JSON.parse(kept));
else showLogin();
