// Making elements. A value becomes text, never markup: nothing on this page reads HTML from a string.

const SVG = 'http://www.w3.org/2000/svg';

/** An element. `props`: attributes; `on…` listeners; `class`. null and false are left out, true is an empty attribute. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A drawing of 24 × 24 units, in the colour of the text around it. */
export function icon(path) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'icon');
  const line = document.createElementNS(SVG, 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

/** Give an element this text, touching the page only where it changes. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Replace an element's children. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** A message that goes away by itself. `kind`: `good` or `bad`. */
export function toast(text, kind = 'good') {
  const line = h('p', { class: `toast ${kind}` }, text);
  document.getElementById('toasts').append(line);
  setTimeout(() => line.remove(), 6000);
}
