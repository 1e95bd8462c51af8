/**
 * The address bar holds what is looked at, so that a link shows a colleague the same: `#/run/quickstart?x=tokens&from=10`.
 * It stands behind the `#`, which is never sent to a server.
 */

export const PAGES = ['runs', 'compare', 'run', 'memory', 'answers', 'cost'] as const;
export type PageName = (typeof PAGES)[number];

export interface Route {
  page: PageName;
  /** Empty on the pages that are not about one run. */
  run: string;
  params: URLSearchParams;
}

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = split(hash.replace(/^#\/?/, ''), '?');
  const [name = '', run = ''] = split(path, '/');
  const page = PAGES.find((known) => known === name) ?? 'runs';
  return { page, run: decode(run), params: new URLSearchParams(query) };
}

export function address(page: PageName, run = '', params: Record<string, string | undefined> = {}): string {
  const given = Object.entries(params).filter((entry): entry is [string, string] => (entry[1] ?? '') !== '');
  const query = new URLSearchParams(given).toString().replaceAll('%2F', '/').replaceAll('%2C', ',');
  const path = page === 'runs' ? '#/' : `#/${page}${run === '' ? '' : `/${encodeURIComponent(run)}`}`;
  return query === '' ? path : `${path}?${query}`;
}

/** Names as one value of the address, for `AddressState.list`; a comma may stand in one, such as in that of a folder. */
export function listed(names: readonly string[]): string {
  return names.map((name) => name.replaceAll('%', '%25').replaceAll(',', '%2C')).join(',');
}

function split(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The state of a page, kept in the address. */
export class AddressState {
  readonly route: Route;

  constructor(route: Route) {
    this.route = route;
  }

  get(name: string): string | undefined {
    return this.route.params.get(name) ?? undefined;
  }

  /** A number, or undefined when there is none. */
  number(name: string): number | undefined {
    const value = Number.parseFloat(this.get(name) ?? '');
    return Number.isFinite(value) ? value : undefined;
  }

  list(name: string): string[] {
    return (this.get(name) ?? '')
      .split(',')
      .filter((part) => part !== '')
      .map(decode);
  }

  has(name: string): boolean {
    return this.route.params.get(name) === '1';
  }

  /** Changes some values; one that is undefined or empty is taken out. `isStep`: the back button comes back to here. */
  set(values: Record<string, string | number | boolean | undefined>, isStep = false): void {
    for (const [name, value] of Object.entries(values)) {
      const text = value === true ? '1' : value === false || value === undefined ? '' : String(value);
      if (text === '') this.route.params.delete(name);
      else this.route.params.set(name, text);
    }
    const link = address(this.route.page, this.route.run, Object.fromEntries(this.route.params));
    if (isStep) history.pushState(null, '', link);
    else history.replaceState(null, '', link);
  }
}
