/** Starts the page and shows what the address names. */

import { answersPage } from './answers.ts';
import { isAbort } from './client.ts';
import { comparePage } from './compare.ts';
import { costPage } from './cost.ts';
import { fill, h, say } from './dom.ts';
import { problem } from './frame.ts';
import { memoryPage } from './memory.ts';
import { AddressState, address, PAGES, type PageName, parseRoute, type Route } from './route.ts';
import { runPage } from './run.ts';
import { runsPage } from './runs.ts';
import { startTheme } from './theme.ts';

/**
 * Shows itself in `main` until `signal` ends it. What it returns is told of changes that the back button makes to the state;
 * without it the page is shown anew.
 */
export type Page = (main: HTMLElement, state: AddressState, signal: AbortSignal) => Promise<(() => void) | undefined>;

const SHOW: Record<PageName, Page> = {
  runs: runsPage,
  compare: comparePage,
  run: runPage,
  memory: memoryPage,
  answers: answersPage,
  cost: costPage,
};
const NAMES: Record<PageName, string> = {
  runs: 'Runs',
  compare: 'Compare',
  run: 'Curves',
  memory: 'Memory',
  answers: 'Answers',
  cost: 'Cost',
};

const main = document.querySelector<HTMLElement>('#main')!;
let shown: { route: Route; state: AddressState; ending: AbortController; changed?: () => void } | undefined;

async function show(): Promise<void> {
  const route = parseRoute(location.hash);
  const before = shown;
  if (before?.changed !== undefined && before.route.page === route.page && before.route.run === route.run) {
    before.route.params = route.params;
    before.changed();
    return;
  }
  before?.ending.abort();
  const ending = new AbortController();
  const state = new AddressState(route);
  const now = { route, state, ending };
  shown = now;
  crumbs(route);
  document.title = `${route.run === '' ? NAMES[route.page] : `${route.run} · ${NAMES[route.page]}`} · memory3`;
  say(document.querySelector('#connection')!, '');
  fill(main, h('p', { class: 'loading' }, 'Loading …'));
  if (before !== undefined) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  try {
    const changed = await SHOW[route.page](main, state, ending.signal);
    if (changed !== undefined) Object.assign(now, { changed });
  } catch (error) {
    if (!isAbort(error) && !ending.signal.aborted)
      fill(
        main,
        problem(error, () => void again()),
      );
  }
}

async function again(): Promise<void> {
  shown?.ending.abort();
  shown = undefined;
  await show();
}

/** Where one is, and the pages of the run. */
function crumbs({ page, run }: Route): void {
  const nav = document.querySelector('#crumbs')!;
  const link = (name: PageName, text: string, of: string) =>
    h('a', { href: address(name, of), 'aria-current': name === page && 'page' }, text);
  const pages = PAGES.filter((name) => name !== 'runs' && name !== 'compare');
  fill(
    nav,
    link('runs', NAMES.runs, ''),
    page === 'compare' && h('a', { href: location.hash, 'aria-current': 'page' }, NAMES.compare),
    run !== '' && h('span', { class: 'of' }, run),
    run !== '' && pages.map((name) => link(name, NAMES[name], run)),
  );
}

document.querySelector('.skip')!.addEventListener('click', (event) => {
  // The address is the state, so the link must not change it.
  event.preventDefault();
  main.focus();
});
// The token of the link is in a cookie by now; the address is for reading and for passing on.
if (new URLSearchParams(location.search).has('token')) {
  history.replaceState(null, '', `${location.pathname}${location.hash}`);
}
startTheme(document.querySelector<HTMLSelectElement>('#theme')!);
addEventListener('hashchange', () => void show());
addEventListener('popstate', () => void show());
await show();
