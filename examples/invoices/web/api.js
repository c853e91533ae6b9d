// The HTTP API: what is asked of it, and errors in the words that the page shows.

/** `code`: the API's own, or "unreachable", or "log_in". */
export class ApiError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

export class Api {
  constructor(token) {
    this.token = token;
  }

  static async logIn(user, password) {
    return new Api("").#ask("login", { user, password });
  }

  invoices = () => this.#ask("invoices");
  create = (invoice) => this.#ask("invoices", invoice);
  send = (invoiceId) => this.#ask(`invoices/${invoiceId}/send`, {});
  /** `payment.id`: the same one again is the same payment, so what got no answer may be repeated. */
  pay = (invoiceId, payment) => this.#ask(`invoices/${invoiceId}/payments`, payment);

  async #ask(path, body) {
    const headers = { ...(this.token && { Authorization: `Bearer ${this.token}` }), ...(body && { "Content-Type": "application/json" }) };
    let response;
    try {
      response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(10_000) });
    } catch {
      throw new ApiError("The server did not answer, so it is not certain that this was done. Look at the list before you try again.", "unreachable");
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    if (response.status === 401) throw new ApiError(answer.detail ?? "Log in again.", "log_in");
    throw new ApiError(answer.message ?? readProblem(answer), answer.code ?? "refused");
  }
}

/** FastAPI tells of each field that does not fit. */
function readProblem({ detail }) {
  if (Array.isArray(detail)) return detail.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join("; ");
  return typeof detail === "string" ? detail : "The server refused this.";
}
