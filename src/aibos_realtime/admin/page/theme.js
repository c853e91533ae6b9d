// Light or dark: as the system has it, until somebody chooses.

const KEY = 'aibos-realtime.theme';
const system = matchMedia('(prefers-color-scheme: dark)');

export const themes = new EventTarget();

export const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';

/** Take over what was chosen before. */
export function beginTheme() {
  const chosen = localStorage.getItem(KEY);
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
  system.addEventListener('change', () => themes.dispatchEvent(new Event('change')));
}

export function switchTheme() {
  const chosen = isDark() ? 'light' : 'dark';
  document.documentElement.dataset.theme = chosen;
  localStorage.setItem(KEY, chosen);
  themes.dispatchEvent(new Event('change'));
}
