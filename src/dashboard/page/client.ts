/** Asks the dashboard's server; see ../api.ts for what it answers. */

export class ApiError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

type Query = Record<string, string | number | undefined>;

/** The address of an answer; `parts` are encoded. */
export function apiAddress(parts: readonly string[], query: Query = {}): string {
  const given = Object.entries(query).filter((entry): entry is [string, string | number] => entry[1] !== undefined);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `/api/${parts.map(encodeURIComponent).join('/')}${text === '' ? '' : `?${text}`}`;
}

/** @throws ApiError what the server said, or that it does not answer; AbortError when `signal` ended it */
export async function ask<T>(parts: readonly string[], query: Query, signal: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(apiAddress(parts, query), { signal, headers: { accept: 'application/json' } });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError('unreachable', 'the dashboard does not answer; is `memory3 dashboard` still running?');
  }
  if (response.ok) return (await response.json()) as T;
  const body = (await response.json().catch(() => undefined)) as
    | { error?: { code: string; message: string } }
    | undefined;
  const { code = 'failed', message = `the dashboard answered ${response.status}` } = body?.error ?? {};
  throw new ApiError(code, message);
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

export type Connection = 'connecting' | 'live' | 'lost';

/** Milliseconds until a stream that the server refused is tried again. */
const RETRY = 3000;

/**
 * Follows server-sent events until `signal` ends it. The browser connects again by itself; a stream that was refused is opened
 * again here. A page that is hidden lets go of its stream: a browser has only six to one server, for all of its pages.
 * @param missed called when a stream stands again: what happened in between was not told
 */
export function follow(
  parts: readonly string[],
  handlers: Record<string, (data: unknown) => void>,
  signal: AbortSignal,
  changed: (connection: Connection) => void,
  missed: () => void,
): void {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wasOpen = false;
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  };
  const open = () => {
    close();
    changed('connecting');
    source = new EventSource(apiAddress(parts));
    source.addEventListener('open', () => {
      changed('live');
      if (wasOpen) missed();
      wasOpen = true;
    });
    source.addEventListener('error', () => {
      changed('lost');
      if (source?.readyState !== EventSource.CLOSED) return;
      clearTimeout(timer);
      timer = setTimeout(open, RETRY);
    });
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse((event as MessageEvent<string>).data)));
    }
  };
  if (signal.aborted) return;
  if (!document.hidden) open();
  document.addEventListener('visibilitychange', () => (document.hidden ? close() : open()), { signal });
  signal.addEventListener('abort', close);
}

/**
 * Calls `work` at most once in `milliseconds`, and once more when it was asked for in between; not while the page is hidden.
 * @returns what asks for it
 */
export function paced(work: () => Promise<void>, milliseconds: number, signal: AbortSignal): () => void {
  let isBusy = false;
  let isWanted = false;
  const go = async () => {
    if (isBusy || document.hidden || signal.aborted) return;
    isBusy = true;
    isWanted = false;
    await work();
    setTimeout(() => {
      isBusy = false;
      if (isWanted) void go();
    }, milliseconds);
  };
  document.addEventListener('visibilitychange', () => isWanted && void go(), { signal });
  return () => {
    isWanted = true;
    void go();
  };
}
