// Numbers as people read them. Every function takes null for "not known" and shows a dash.

export const DASH = "–";

export function money(usd) {
  if (usd === null || usd === undefined) return DASH;
  const size = Math.abs(usd);
  if (size === 0) return "$0";
  if (size >= 1000) return `$${Math.round(usd).toLocaleString("en-US")}`;
  if (size >= 0.1) return `$${usd.toFixed(2)}`;
  if (size < 1e-7) return usd < 0 ? "−$0" : "~$0";
  const digits = Math.min(8, 1 - Math.floor(Math.log10(size)));
  return `$${usd.toFixed(digits)}`.replace("$-", "−$");
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  if (seconds < 0.001) return `${(seconds * 1000).toFixed(2)} ms`;
  if (seconds < 0.1) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 100 ? `${seconds.toFixed(seconds < 10 ? 2 : 1)} s` : `${Math.round(seconds / 60)} min`;
}

export function count(number) {
  if (number === null || number === undefined) return DASH;
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)} M`;
  return number >= 1e4 ? `${(number / 1e3).toFixed(1)} k` : number.toLocaleString("en-US");
}

export function percent(share) {
  return share === null || share === undefined ? DASH : `${Math.round(share * 100)} %`.replace("-", "−");
}

export function probability(p) {
  return p === null || p === undefined ? DASH : p.toFixed(2);
}

export function price(perMillion) {
  return perMillion === null || perMillion === undefined ? DASH : `$${perMillion}`;
}

export function tokens(number) {
  if (number === null || number === undefined) return DASH;
  return number >= 1000 ? `${Math.round(number / 1000)}k` : String(number);
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

// "0.8 s" as ["0.8", "s"], so that units can be set smaller.
export function split(text) {
  const at = text.lastIndexOf(" ");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
