/** Numbers as people of the field read them. */

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** Four significant digits; very small and very large ones with a power of ten. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace('e+', 'e');
  if (Number.isInteger(value)) return grouped.format(value);
  return size >= 1000 ? grouped.format(value) : value.toPrecision(4);
}

export function integer(value: number | undefined): string {
  return value === undefined || !Number.isFinite(value) ? '–' : grouped.format(value);
}

/** With k, M, G, T; three digits. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  const [unit, text] = (
    [
      [1e12, 'T'],
      [1e9, 'G'],
      [1e6, 'M'],
      [1e3, 'k'],
    ] as const
  ).find(([least]) => size >= least) ?? [1, ''];
  const scaled = value / unit;
  return `${text === '' && Number.isInteger(value) ? value : trim(scaled)}${text}`;
}

function trim(value: number): string {
  const text = value.toPrecision(3);
  return text.includes('e') ? String(Number(text)) : text;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let power = 0;
  while (Math.abs(value) / 1000 ** power >= 1000 && power < units.length - 1) power += 1;
  return `${power === 0 ? value : (value / 1000 ** power).toPrecision(3)} ${units[power]}`;
}

/** 41 s, 3 min 05 s, 2 h 10 min, 3 d 4 h. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  const whole = Math.round(seconds);
  if (whole < 60) return seconds < 10 ? `${Number(seconds.toFixed(1))} s` : `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

/** Local date and time of seconds since 1970: 2026-11-26 01:40:12. */
export function time(seconds: number | undefined): string {
  if (seconds === undefined) return '–';
  const date = new Date(seconds * 1000);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${clock(seconds)}`;
}

/** Local day of the year and time: 11-26 01:40. */
export function dayAndTime(seconds: number | null | undefined): string {
  return time(seconds ?? 0).slice(5, 16);
}

/** Local time of the day. */
export function clock(seconds: number | null | undefined): string {
  const date = new Date((seconds ?? 0) * 1000);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** 41 s ago, 3 min ago, 2 h ago, 3 d ago. */
export function ago(seconds: number | undefined, now = Date.now() / 1000): string {
  if (seconds === undefined) return '–';
  const whole = Math.max(0, Math.round(now - seconds));
  const [size, unit] = AGES.find(([least]) => whole >= least) ?? [1, 's'];
  return `${Math.floor(whole / size)} ${unit} ago`;
}

const AGES = [
  [86400, 'd'],
  [3600, 'h'],
  [60, 'min'],
] as const;

export function percent(share: number | null | undefined, digits = 1): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return '–';
  return `${(100 * share).toFixed(digits)} %`;
}

/** Any value of a config or a summary. */
export function anything(value: unknown): string {
  if (typeof value === 'number') return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  if (typeof value === 'string') return value;
  return value === undefined ? 'not set' : JSON.stringify(value);
}

/** How values of a key are written, by the unit at the end of its name. */
export function formatOf(key: string): (value: number | null | undefined) => string {
  if (key.endsWith('_bytes')) return bytes;
  if (key.endsWith('learning_rate'))
    return (value) => (value === null || value === undefined ? '–' : String(Number(value.toPrecision(4))));
  if (key.endsWith('_percent')) return (value) => (value === null || value === undefined ? '–' : `${number(value)} %`);
  if (key.endsWith('_share') || key.endsWith('_rate')) return percent;
  if (key.endsWith('_ms')) return (value) => (value === null || value === undefined ? '–' : `${number(value)} ms`);
  if (key.endsWith('_per_s')) return short;
  return number;
}
