// What an event says, as a sentence; and what somebody may do with an invoice. `you` is the user who reads it.

import { showMoney } from "./money.js";

/** `invoice`: undefined where it is not known. */
export function tell(name, data, invoice, you) {
  const who = actorOf(name, data);
  const subject = who === undefined ? "Somebody" : who === you ? "You" : who;
  const whose = invoice ? `the invoice for ${invoice.customer}` : "an invoice";
  const money = (amount) => (invoice ? showMoney(amount, invoice.currency) : "a sum");
  switch (name) {
    case "invoice.created": return `${subject} created an invoice for ${data.customer}: ${showMoney(data.amount, data.currency)}`;
    case "invoice.approved": return `${subject} approved ${whose}`;
    case "invoice.sent": return `${subject} sent ${whose}`;
    case "payment.processed": return `${subject} took ${money(data.amount)} for ${whose}: ${data.openAmount === 0 ? "paid in full" : `${money(data.openAmount)} still open`}`;
  }
  return name;
}

export const actorOf = (name, data) => data[{ "invoice.created": "createdBy", "invoice.approved": "approvedBy", "invoice.sent": "sentBy", "payment.processed": "takenBy" }[name]];

/** The steps that this user may take now: some of "approve", "send", "pay". The server decides; this only leaves out buttons that cannot work. */
export function stepsOf(invoice, { user, role }) {
  if (invoice.status === "draft") return role === "admin" && invoice.createdBy !== user ? ["approve"] : [];
  if (role === "viewer") return [];
  return { approved: ["send"], sent: ["pay"] }[invoice.status] ?? [];
}

export const STEP_LABELS = { approve: "Approve", send: "Send", pay: "Take payment" };

export const mayCreate = ({ role }) => role !== "viewer";
