// Numbers and times as a person reads them.

/** Three digits that count. */
export function digits(v: number): string {
  if (v === 0) return "0";
  if (v < 0.0995) return v.toFixed(3);
  if (v < 9.95) return v.toFixed(2);
  if (v < 99.5) return v.toFixed(1);
  return v.toFixed(0);
}

/** Microseconds in ms. */
export const ms = (us: number) => digits(us / 1000);

/** The same with its unit, small ones in µs. */
export const latency = (us: number) => (us < 99.5 ? `${Math.round(us)} µs` : `${ms(us)} ms`);

/** Millionths in percent. */
export const percent = (ppm: number) => (ppm === 0 ? "0" : ppm < 100 ? "<0.01" : digits(ppm / 10000));

export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** A time of day, with the date where it was another day. */
export function time(at: number, now: number): string {
  return now - at < 12 * 3600e3 ? clock.format(at) : date.format(at);
}

export const count = (n: number) => n.toLocaleString("en").replaceAll(",", "\u202f");

export function counted(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}
