// What is on the page. It draws what it is given, as text and never as HTML, and reports what was clicked.

import { editMoney, readMoney, showMoney } from "./money.js";
import { STEP_LABELS } from "./words.js";

const TOASTS = 3;
const TOAST_SECONDS = 7;

export const $ = (id) => document.getElementById(id);

/** make("p.quiet", {title: "…"}, "text", element, …) */
export function make(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = Object.assign(document.createElement(tag), properties);
  element.classList.add(...classes);
  element.append(...children);
  return element;
}

export function showLogin(message) {
  $("book").hidden = true;
  $("login").hidden = false;
  showError($("login-error"), message);
  for (const list of ["toasts", "people", "feed", "totals"]) $(list).replaceChildren();
  $("invoices").tBodies[0].replaceChildren();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  $("login-form").elements.user.focus();
}

export function showBook({ user, role, tenant }, mayCreate) {
  $("login").hidden = true;
  $("book").hidden = false;
  $("tenant").textContent = `Tenant ${tenant}`;
  $("me").replaceChildren(make("b", {}, user), ` ${role}`);
  $("new").hidden = !mayCreate;
  document.title = `Invoices – ${user}`;
}

export function showError(element, message) {
  element.hidden = !message;
  element.textContent = message ?? "";
}

const CONNECTION = { connecting: "Connecting…", connected: "Live", reconnecting: "Reconnecting…", disconnected: "Not connected", closed: "Not connected" };

export function showConnection(state, since) {
  $("connection").dataset.state = state;
  $("connection").textContent = CONNECTION[state] ?? state;
  const away = state === "reconnecting" && since;
  showError($("notice"), away && `No connection since ${showTime(since)}. What others do meanwhile appears here as soon as it is back.`);
}

export function showPeople(users, you) {
  const shown = new Map([...$("people").children].map((chip) => [chip.dataset.user, chip]));
  $("people").replaceChildren(...users.map((user) => {
    if (shown.has(user)) return shown.get(user);
    const chip = make("li.person", {}, make("i", { ariaHidden: "true" }, user[0]), user === you ? `${user} (you)` : user);
    chip.dataset.user = user;
    chip.style.setProperty("--hue", [...user].reduce((sum, letter) => sum * 31 + letter.codePointAt(0), 7) % 360);
    return chip;
  }));
}

/** `steps`: what the user may do with each. `onStep(step, invoice, button)` */
export function showInvoices(book, stepsOf, onStep, changed) {
  const invoices = book.list();
  $("invoices").hidden = invoices.length === 0;
  showError($("empty"), invoices.length === 0 && "There are no invoices yet.");
  $("invoices").tBodies[0].replaceChildren(...invoices.map((invoice) => row(invoice, stepsOf(invoice), onStep, invoice.invoiceId === changed)));
  $("totals").replaceChildren(...book.totals().map(({ status, count, open }) => {
    const sums = status === "paid" ? [] : Object.entries(open).map(([currency, amount]) => showMoney(amount, currency));
    return make("div", {}, make("dt", {}, status), make("dd", {}, String(count)), ...sums.map((sum) => make("dd", {}, sum)));
  }));
}

function row(invoice, steps, onStep, isChanged) {
  const { invoiceId, customer, status, amount, openAmount, currency, createdBy } = invoice;
  const badge = make("span.status", {}, status);
  badge.dataset.status = status;
  const buttons = steps.map((step) => {
    const button = make("button", { type: "button" }, STEP_LABELS[step]);
    button.dataset.step = step;
    button.addEventListener("click", () => onStep(step, invoice, button));
    return button;
  });
  const cells = [
    make("td.customer", {}, customer), make("td.status-cell", {}, badge), make("td.number", {}, showMoney(amount, currency)),
    make("td.number.open", {}, showMoney(openAmount, currency)), make("td.by", {}, createdBy), make("td.steps", {}, ...buttons),
  ];
  for (const [index, label] of [[2, "Amount"], [3, "Open"], [4, "By"]]) cells[index].dataset.label = label; // on a phone there are no headings
  const line = make("tr", {}, ...cells);
  line.dataset.invoice = invoiceId;
  if (isChanged) line.classList.add("changed");
  return line;
}

/** `entries`: [{id, at, text}], newest first. */
export function showFeed(entries) {
  $("feed").replaceChildren(...entries.map(({ id, at, text }) => {
    const entry = make("li", {}, make("span", {}, text), make("time", { dateTime: at.toISOString(), title: at.toLocaleString() }, showTime(at)));
    entry.dataset.event = id;
    return entry;
  }));
}

function showTime(at) {
  const isToday = at.toDateString() === new Date().toDateString();
  return at.toLocaleString("en-GB", isToday ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" });
}

/** A word at the corner. One about the same thing (`about`) takes the place of the one before. `action`: [label, function]. */
export function toast(text, { about, kind = "news", action } = {}) {
  const toasts = $("toasts");
  [...toasts.children].find((other) => about && other.dataset.about === about)?.remove();
  const close = make("button.quiet", { type: "button", ariaLabel: "Dismiss" }, "✕");
  const item = make("div.toast", {}, make("p", {}, text));
  item.dataset.kind = kind;
  item.dataset.about = about ?? "";
  if (action) {
    const button = make("button", { type: "button" }, action[0]);
    button.addEventListener("click", () => {
      item.remove();
      action[1](button);
    });
    item.append(button);
  }
  item.append(close);
  close.addEventListener("click", () => item.remove());
  toasts.append(item);
  while (toasts.children.length > TOASTS) toasts.firstElementChild.remove();
  const leave = () => (item.matches(":hover, :focus-within") ? setTimeout(leave, 1000) : item.remove());
  setTimeout(leave, TOAST_SECONDS * 1000);
}

/** Ask in a dialog. `prepare(fields)` fills it, `send(fields)` does it; what that throws is shown in the dialog, which stays open. */
export function ask(name, prepare, send) {
  const dialog = $(`${name}-dialog`), form = $(`${name}-form`), error = form.querySelector(".error"), submit = form.querySelector("[type=submit]");
  form.reset();
  showError(error);
  prepare(form.elements);
  form.onsubmit = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await send(form.elements);
      dialog.close();
    } catch (problem) {
      showError(error, problem.message);
    } finally {
      submit.disabled = false;
    }
  };
  dialog.showModal();
}

for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

export { editMoney, readMoney, showMoney };
