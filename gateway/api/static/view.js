// Turns values into elements. Text is only ever set as text, never as markup: whatever a model or a client is called,
// it cannot become part of the page.

import { clock, count, DASH, duration, money, percent, price, probability, tokens } from "./format.js";

const RULES = {
  utility: ["best value", "accent"],
  named: ["named", ""],
  session: ["same session", ""],
  tool_loop: ["tool loop", ""],
  abstain: ["too close: default", "warn"],
  only_one: ["only one", ""],
  explore: ["exploring", ""],
};

const OUTCOMES = {
  client_error: ["client error", "warn"],
  upstream_error: ["provider error", "bad"],
  timeout: ["timeout", "bad"],
  disconnected: ["client left", "warn"],
  limited: ["limit", "warn"],
  gateway_error: ["gateway error", "bad"],
};

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function chip(text, kind = "") {
  return h("span", { class: `chip ${kind}` }, text);
}

export function scale(verdict) {
  const low = verdict.p_low ?? verdict.p;
  const high = verdict.p_high ?? verdict.p;
  const label = `predicted quality ${probability(verdict.p)}, between ${probability(low)} and ${probability(high)}`;
  return h("span", { class: "scale", role: "img", "aria-label": label, title: label },
    h("span", { class: "band", "--low": low, "--high": high }),
    h("span", { class: "dot", "--p": verdict.p }));
}

// A line over time; gaps where a value is null. `second` is drawn behind it.
export function lines(element, label, values, second = null) {
  const top = Math.max(...values.filter((v) => v !== null), ...(second ?? []).filter((v) => v !== null), 1e-12);
  const step = 100 / Math.max(values.length - 1, 1);
  const path = (series) => {
    let pen = "M";
    let text = "";
    series.forEach((value, index) => {
      if (value === null) { pen = "M"; return; }
      // A single value between two gaps would be invisible as a point: give it a short line.
      const alone = pen === "M" && (series[index + 1] ?? null) === null ? "h1.2" : "";
      text += `${pen}${(index * step).toFixed(2)},${(33 - (value / top) * 31).toFixed(2)}${alone}`;
      pen = "L";
    });
    return text;
  };
  const drawn = [svg("path", { class: "line", d: path(values) })];
  if (second) drawn.unshift(svg("path", { class: "line second", d: path(second) }));
  element.replaceChildren(svg("svg", { viewBox: "0 0 100 34", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...drawn));
}

export function bars(element, label, values, errors) {
  const top = Math.max(...values, 1);
  const width = 100 / values.length;
  const drawn = [];
  const bar = (index, value, kind) => {
    const height = Math.max((value / top) * 33, 1.2);
    drawn.push(svg("rect", { class: `bar ${kind}`, x: (index * width + width * 0.12).toFixed(2), y: (34 - height).toFixed(2), width: (width * 0.76).toFixed(2), height: height.toFixed(2), rx: 0.4 }));
  };
  values.forEach((value, index) => {
    if (value > 0) bar(index, value, "");
    if (errors[index] > 0) bar(index, errors[index], "errors");
  });
  drawn.push(svg("path", { class: "line second", d: "M0,33.9H100" }));
  element.replaceChildren(svg("svg", { viewBox: "0 0 100 34", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...drawn));
}

function byUtility(a, b) {
  if ((a.excluded_because === null) !== (b.excluded_because === null)) return a.excluded_because === null ? -1 : 1;
  return (b.utility ?? -Infinity) - (a.utility ?? -Infinity);
}

function because(why) {
  return Object.entries(why ?? {}).map(([name, value]) =>
    `${name.replaceAll("_", " ")} ${typeof value === "number" ? (value > 0 ? "+" : "") + value.toFixed(2) : value}`).join(", ");
}

// The ranking of a decision: every candidate with p and its interval, cost and time, or why it was left out.
export function ranking(decision, answeredBy = null) {
  const rows = [...decision.candidates].sort(byUtility).map((verdict, index) => {
    const excluded = verdict.excluded_because !== null;
    const chosen = verdict.model === decision.model;
    const facts = [];
    if (!excluded) {
      if (verdict.p !== null) facts.push(`p ${probability(verdict.p)} (${probability(verdict.p_low)}–${probability(verdict.p_high)})`);
      if (verdict.time_s !== null) facts.push(`about ${duration(verdict.time_s)}`);
      if (verdict.utility !== null) facts.push(`value ${verdict.utility.toFixed(3)}`);
      if (because(verdict.why)) facts.push(because(verdict.why));
      if (answeredBy === verdict.model && !chosen) facts.push("answered after a fallback");
    }
    return h("li", { class: `rank${chosen ? " chosen" : ""}${excluded ? " excluded" : ""}` },
      h("span", { class: "place" }, excluded ? "" : String(index + 1)),
      h("span", { class: "name" }, verdict.model),
      excluded || verdict.p === null ? null : scale(verdict),
      excluded ? null : h("span", { class: "cost", title: "expected cost of this request" }, money(verdict.cost_usd)),
      h("span", { class: "detail" }, excluded ? verdict.excluded_because : facts.join(" · ")));
  });
  return h("ol", { class: "ranking" }, ...rows);
}

// What the prompt resembles, from the nearest prompts that the encoder knows.
function resemblance(decision) {
  if (decision.prior) return "";
  if (decision.novelty >= 0.9) return " The prompt is unlike anything known.";
  const kinds = [...new Set((decision.neighbours ?? []).map(([, category]) => category))].slice(0, 2);
  return kinds.length ? ` The prompt looks like: ${kinds.join(", ")}.` : "";
}

export function verdictLine(decision) {
  const [text, kind] = RULES[decision.rule] ?? [decision.rule, ""];
  return h("p", { class: "verdict" }, h("span", { class: "model" }, decision.model), " ", chip(text, kind), " ",
    h("span", {}, decision.reason),
    h("span", { class: "note" }, ` ${decision.prior ? "Scored by a prior (nothing learned yet)" : `Scored by the encoder ${decision.scorer}`}, decided in ${duration(decision.decide_ms / 1000)}.${resemblance(decision)}`));
}

function fact(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

export function decisionRow(row) {
  const decision = row.decision ?? { candidates: [], model: row.model, rule: row.rule, reason: row.reason };
  const [rule, kind] = RULES[row.rule] ?? [row.rule, ""];
  const verdict = decision.candidates.find((one) => one.model === row.model) ?? null;
  const marks = [chip(rule, kind)];
  if (row.fallbacks > 0) marks.push(chip(row.fallbacks === 1 ? "1 fallback" : `${row.fallbacks} fallbacks`, "warn"));
  if (row.outcome !== "ok") marks.push(chip(...(OUTCOMES[row.outcome] ?? [row.outcome, "bad"])));
  const scored = verdict !== null && verdict.p !== null;
  const summary = h("summary", {},
    h("span", { class: "when" }, clock(row.at)),
    h("span", { class: "who" }, h("span", { class: "model" }, row.model), ...marks),
    scored ? scale(verdict) : h("span", { class: "scale-none" }),
    h("span", { class: "number" }, money(row.cost_usd)),
    h("span", { class: "number" }, duration(row.duration_s)),
    h("span", { class: "reason" }, decision.reason ?? ""));
  const details = h("details", { class: "decision", "data-id": row.id }, summary);
  // Built only when opened: most rows never are.
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(decisionDetails(row, decision));
  });
  return h("li", {}, details);
}

function decisionDetails(row, decision) {
  const usage = row.usage;
  const attempts = (row.attempts ?? []).map(([model, , outcome]) => `${model}: ${outcome}`).join(" → ");
  const facts = [
    fact("asked for", row.requested),
    fact("tokens in / out", usage ? `${count(usage.prompt_tokens)} / ${count(usage.completion_tokens)}${usage.estimated ? " (estimated)" : ""}` : DASH),
    fact("first token", row.stream ? duration(row.first_token_s) : "not streamed"),
    fact("gateway overhead", duration(row.overhead_s)),
    fact("cost on the baseline", money(row.baseline_cost_usd)),
    fact("status", row.error_code ? `${row.status} ${row.error_code}` : String(row.status)),
    fact("deployment", row.deployment || DASH),
    fact("decision", row.id),
  ];
  if (attempts) facts.push(fact("attempts", attempts));
  const scored = decision.candidates.length > 0;
  return h("div", { class: "more" }, h("dl", { class: "facts" }, ...facts), scored ? ranking(decision, row.model) : null);
}

export function candidateCard(row) {
  const state = { up: "healthy", down: `resting, tried again in ${Math.ceil(row.retry_in_s)} s`, disabled: "switched off" }[row.state];
  const about = [row.provider, row.context_window ? `${tokens(row.context_window)} tokens` : null, ...row.can.map((one) => one.replace("_", " "))];
  if (row.deployments > 1) about.push(`${row.deployments} deployments`);
  return h("li", { class: `candidate ${row.state}`, "data-model": row.name },
    h("div", { class: "title" },
      h("span", { class: `light ${row.state}`, role: "img", "aria-label": state, title: state }),
      h("span", { class: "name" }, row.name),
      row.state === "up" ? null : chip(row.state === "down" ? "resting" : "off", row.state === "down" ? "bad" : "")),
    h("p", { class: "note" }, about.filter(Boolean).join(" · ")),
    h("div", { class: "share", title: `${percent(row.share)} of the answers` }, h("span", { "--share": row.share })),
    h("dl", {},
      fact("answers", `${count(row.requests)} (${percent(row.share)})`),
      fact("spent", row.price_in === null && row.price_out === null ? "no price" : money(row.cost_usd)),
      fact("errors", count(row.errors)),
      fact("$/M in, out", `${price(row.price_in)}, ${price(row.price_out)}`),
      fact("first token", duration(row.ttft_s)),
      fact("tokens/s", row.tokens_per_s === null ? DASH : Math.round(row.tokens_per_s).toString())));
}

// Text with `commands` in backticks.
function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

export function problem(one) {
  return h("div", { class: `problem${one.blocking ? " blocking" : ""}` }, h("strong", {}, one.what), ...withCode(one.fix));
}

export function recipe(title, command) {
  const copy = h("button", { type: "button", class: "quiet" }, "Copy");
  copy.addEventListener("click", () => copyText(command, copy));
  return h("div", { class: "recipe" }, h("div", { class: "card-head" }, h("h3", {}, title), copy), h("code", { class: "block" }, command));
}

export async function copyText(text, button) {
  const before = [...button.childNodes];
  try {
    await navigator.clipboard.writeText(text);
    button.replaceChildren("Copied");
  } catch {
    button.replaceChildren("Select and copy by hand");
  }
  setTimeout(() => button.replaceChildren(...before), 1500);
}
