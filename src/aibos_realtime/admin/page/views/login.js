// The log-in form: all that somebody without a token sees.

import { h, say } from '../dom.js';
import { LoginError, session } from '../session.js';

export function loginView({ root, reason, onDone }) {
  const note = h('p', { class: 'trouble', role: 'alert', id: 'login-note', hidden: !reason }, reason ?? '');
  const input = h('input', {
    type: 'password',
    id: 'token',
    name: 'token',
    autocomplete: 'off',
    spellcheck: 'false',
    required: true,
    'aria-describedby': 'login-help login-note',
  });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Log in');
  const form = h(
    'form',
    { class: 'login', novalidate: true },
    h('h1', { tabindex: '-1' }, h('span', { class: 'logo', 'aria-hidden': 'true' }), 'aibos-realtime'),
    h('label', { for: 'token' }, 'Token of an operator'),
    input,
    button,
    note,
    h(
      'p',
      { class: 'note', id: 'login-help' },
      'It stays in this tab, and goes to this server alone. To make one, where the server is configured:',
    ),
    h('pre', { class: 'command', tabindex: '0' }, 'aibos-realtime token --user NAME --role operator'),
  );
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    button.disabled = true;
    say(button, 'Connecting …');
    note.hidden = true;
    try {
      await session.logIn(input.value);
      onDone();
    } catch (error) {
      if (!(error instanceof LoginError)) throw error;
      note.hidden = false;
      say(note, error.message);
      input.focus();
    } finally {
      button.disabled = false;
      say(button, 'Log in');
    }
  });
  root.append(h('main', { class: 'alone' }, form));
  input.focus();
}
