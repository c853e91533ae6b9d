// The tenant's invoices, put together from what the API lists and what events tell. No page, no network.
//
// An invoice only ever goes forward (draft → approved → sent → paid, and its open amount down). So what is known of it can be merged in any order,
// and the same thing twice: an event may come before the list that it is already in.

const STEPS = ["draft", "approved", "sent", "paid"];

export class Book {
  #invoices = new Map();

  /** Take in what is known of an invoice: all of it, or a part. Returns it as it is now, or undefined while all that is known is a part. */
  merge({ invoiceId, status = "draft", openAmount = Infinity, ...rest }) {
    const known = this.#invoices.get(invoiceId) ?? { invoiceId, status, openAmount };
    const later = STEPS.indexOf(status) > STEPS.indexOf(known.status) ? status : known.status;
    const merged = { ...known, ...rest, status: later, openAmount: Math.min(openAmount, known.openAmount) };
    this.#invoices.set(invoiceId, merged);
    return isWhole(merged) ? merged : undefined;
  }

  /** An event of the room. Returns the invoice that it is about, as `merge` does. */
  apply(name, data) {
    switch (name) {
      case "invoice.created": return this.merge(data);
      case "invoice.approved": return this.merge({ invoiceId: data.invoiceId, status: "approved" });
      case "invoice.sent": return this.merge({ invoiceId: data.invoiceId, status: "sent" });
      case "payment.processed": return this.merge({ invoiceId: data.invoiceId, status: data.openAmount === 0 ? "paid" : "sent", openAmount: data.openAmount });
    }
    return this.get(data.invoiceId);
  }

  /** What the API lists: the tenant's invoices, oldest first. */
  load(invoices) {
    const listed = invoices.map((invoice) => [invoice.invoiceId, this.merge(invoice)]);
    const ids = new Set(listed.map(([id]) => id));
    this.#invoices = new Map([...listed, ...[...this.#invoices].filter(([id]) => !ids.has(id))]);
  }

  get(invoiceId) {
    const found = this.#invoices.get(invoiceId);
    return found && isWhole(found) ? found : undefined;
  }

  /** Newest first. */
  list() {
    return [...this.#invoices.values()].filter(isWhole).reverse();
  }

  /** [{status, count, open: {currency: amount}}] for each step. */
  totals() {
    return STEPS.map((status) => {
      const found = this.list().filter((invoice) => invoice.status === status);
      const open = {};
      for (const { currency, openAmount } of found) open[currency] = (open[currency] ?? 0) + openAmount;
      return { status, count: found.length, open };
    });
  }
}

const isWhole = (invoice) => invoice.customer !== undefined;
