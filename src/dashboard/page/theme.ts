/** Dark, light, or as the system has it; remembered in this browser. Colours of canvases come from the style sheet. */

const KEY = 'memory3.theme';
const listeners = new Set<() => void>();

export function startTheme(control: HTMLSelectElement): void {
  control.value = stored();
  show(control.value);
  control.addEventListener('change', () => {
    try {
      localStorage.setItem(KEY, control.value);
    } catch {
      // A browser that keeps nothing still changes the theme of this page.
    }
    show(control.value);
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', tell);
}

/** Calls `redraw` when colours changed. */
export function onTheme(redraw: () => void, signal: AbortSignal): void {
  listeners.add(redraw);
  signal.addEventListener('abort', () => listeners.delete(redraw));
}

const probe = document.createElement('span');

/** A colour of the style sheet, such as `--ink`, as canvases know it: `rgb(26, 32, 39)`. */
export function colour(name: string): string {
  if (!probe.isConnected) document.body.append(probe);
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/** @param rgb from `colour` */
export function withAlpha(rgb: string, alpha: number): string {
  return rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}

export const LINE_COLOURS = 8;

/** The name of the colour of the nth line. */
export function lineColour(index: number): string {
  return `--line-${index % LINE_COLOURS}`;
}

function stored(): string {
  try {
    return localStorage.getItem(KEY) ?? 'auto';
  } catch {
    return 'auto';
  }
}

function show(theme: string): void {
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  tell();
}

function tell(): void {
  for (const listener of listeners) listener();
}
