// Who is logged in, and the one connection over which everything is asked. The token lives in this tab's sessionStorage and nowhere else.

import { RealtimeClient } from '../client.js';

const KEY = 'aibos-realtime.token';
const PATIENCE = 10_000; // milliseconds until a log-in is given up
const COMMAND = 'aibos-realtime token --user NAME --role operator';

/** Why there is no session, as a sentence for the one who tries. */
export class LoginError extends Error {}

/** `state`: `out`, `connecting`, `open`, `lost` (it comes back by itself). Tells of changes by the event `state`. */
class Session extends EventTarget {
  constructor() {
    super();
    this.state = 'out';
    this.user = null;
    this.expiresAt = null;
    /** Why the last session ended, if not by the user's own wish. */
    this.reason = null;
    this._client = null;
  }

  /** The token to begin with: of the address (`#token=…`, which is taken out of it at once), or what this tab has kept. */
  static remembered() {
    const given = /^#token=([^&]+)/.exec(location.hash);
    if (given) {
      history.replaceState(null, '', `${location.pathname}${location.search}#/overview`);
      return decodeURIComponent(given[1]);
    }
    return sessionStorage.getItem(KEY);
  }

  /** Connect as an operator. `isPatient`: wait for a server that is down. Raises `LoginError`. */
  async logIn(text, { isPatient = false } = {}) {
    const token = text.trim().replace(/^bearer\s+/i, '');
    const claims = readToken(token);
    if (!isPatient) await this._probe();
    this.reason = null;
    this._end();
    const client = this._open(token);
    this._set('connecting');
    try {
      await withinTime(client.connect(), isPatient ? null : PATIENCE);
      await client.sendMessage('realtime.nodes', {});
    } catch (error) {
      if (this._client !== client) throw new LoginError(this.reason ?? 'Logged out.');
      const sentence = await this._explain(error, client, token).catch((other) => other.message);
      this._end();
      this._set('out');
      throw new LoginError(sentence);
    }
    this.user = client.user ?? { id: claims.sub ?? claims.userId };
    this.expiresAt = claims.exp ?? null;
    sessionStorage.setItem(KEY, token);
    this._set('open');
  }

  /** End the session. `reason`: what the next log-in form says. */
  logOut(reason = null) {
    sessionStorage.removeItem(KEY);
    this.reason = reason;
    this._end();
    this._set('out');
  }

  /** One request, as `live.py` answers it. Raises what the server refuses it with (`.code`, `.message`). */
  async ask(name, data = {}) {
    if (this.state !== 'open') throw new Error('There is no connection to the server.');
    const client = this._client;
    try {
      return await client.sendMessage(`realtime.${name}`, data);
    } catch (error) {
      if (error.code === 'permission_denied' && client === this._client) this.logOut(notOperator(this.user));
      throw error;
    }
  }

  _open(token) {
    const url = new URL('../ws', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    url.search = url.hash = '';
    const client = new RealtimeClient({ url: url.href, token, reconnectInterval: 1000 });
    client.on('state-change', (state) => {
      if (client !== this._client || this.state === 'connecting') return;
      if (state === 'connected') this._set('open');
      else if (state === 'reconnecting') this._set('lost');
    });
    client.on('error', (error) => {
      if (client === this._client && this.state !== 'connecting' && isFinal(error)) this.logOut(refused(error, token));
    });
    this._client = client;
    return client;
  }

  _end() {
    const client = this._client;
    this._client = null;
    this.user = null;
    client?.close();
  }

  _set(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event('state'));
  }

  /** Raises `LoginError` where no server answers. */
  async _probe() {
    try {
      await fetch('../health', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    } catch {
      throw new LoginError('The server does not answer. Is it running, and can this machine reach it?');
    }
  }

  async _explain(error, client, token) {
    if (error.code === 'permission_denied') return notOperator(client.user);
    if (isFinal(error)) return refused(error, token);
    await this._probe();
    return (
      'The server answers, but its WebSocket does not take this page: it may be full or draining, or `cors.origin` of its ' +
      'configuration lists other origins alone.'
    );
  }
}

const isFinal = (error) =>
  error.code === 'not_authenticated' || (error.retryable === false && error.closeCode >= 4500 && error.closeCode <= 4999);

function notOperator(user) {
  const who = user ? `${user.id} has the role ${user.role ?? 'of nobody'}` : 'This user has no such role';
  return `This is for operators, and ${who}. Which roles operate is said by \`http.operator_roles\` (default: operator).`;
}

function refused(error, token) {
  if (error.closeCode === 4503) return 'An administrator has closed this connection, or the token was revoked.';
  if (error.closeCode === 4504) return 'This user has as many connections as the server allows: close another one first.';
  const { exp } = claimsOf(token ?? '') ?? {};
  if (exp && exp * 1000 < Date.now()) return expired(exp);
  return `The server does not accept this token: it was made with another secret, is not for this server, or was revoked. Make one with: ${COMMAND}`;
}

const expired = (exp) => `The token has expired (${new Date(exp * 1000).toLocaleString('en-GB')}). Make a new one: ${COMMAND}`;

/** The claims of a token, unchecked: that is for the server. Raises `LoginError` for what is no token at all, or no longer good. */
export function readToken(token) {
  if (!token) throw new LoginError('Paste a token first.');
  const claims = claimsOf(token);
  if (!claims && /^(rk_|sha256:)/.test(token)) {
    throw new LoginError(`This is an API key, and a WebSocket takes tokens alone. Make one with: ${COMMAND}`);
  }
  if (!claims) throw new LoginError(`This is not a token (a JWT: three parts with dots between them). Make one with: ${COMMAND}`);
  if (claims.exp && claims.exp * 1000 < Date.now()) throw new LoginError(expired(claims.exp));
  return claims;
}

function claimsOf(token) {
  const parts = token.split('.');
  if (parts.length !== 3) return null;
  try {
    const binary = atob(parts[1].replaceAll('-', '+').replaceAll('_', '/'));
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (letter) => letter.charCodeAt(0))));
    return claims && typeof claims === 'object' ? claims : null;
  } catch {
    return null;
  }
}

function withinTime(promise, milliseconds) {
  if (milliseconds === null) return promise;
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('late')), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export const session = new Session();
export const remembered = () => Session.remembered();
