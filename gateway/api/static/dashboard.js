// The page's behaviour: asks the gateway every two seconds, shows what is new, and runs the try-it box.

import { count, DASH, duration, money, percent, split } from "./format.js";
import { bars, candidateCard, copyText, decisionRow, h, lines, problem, ranking, recipe, verdictLine } from "./view.js";

const EVERY_MS = 2000;
const KEPT_ROWS = 60;
const SHOWN_ROWS = 12; // as in dashboard.css
const SHOWN_MODELS = 8;
const $ = (id) => document.getElementById(id);
const base = new URL(".", location.href);
const state = { newest: null, paused: false, timer: null, asked: false, dialTouched: false, overview: null };

// -- talking to the gateway ------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const keys = {
  admin: () => sessionStorage.getItem("orbweaver.admin_key"),
  client: () => sessionStorage.getItem("orbweaver.client_key"),
};

async function call(path, { body = null, key = null } = {}) {
  const headers = { accept: "application/json" };
  if (body !== null) headers["content-type"] = "application/json";
  if (key) headers.authorization = `Bearer ${key}`;
  const reply = await fetch(new URL(path, base), { method: body === null ? "GET" : "POST", headers, body: body === null ? null : JSON.stringify(body), cache: "no-store" });
  const text = await reply.text();
  let data = null;
  try { data = JSON.parse(text); } catch { /* not JSON: reported below */ }
  if (!reply.ok) {
    const error = data?.error ?? {};
    throw new Refused(error.message ?? `The gateway answered ${reply.status}.`, reply.status, error.code ?? null);
  }
  return { data, headers: reply.headers };
}

// -- what is shown ---------------------------------------------------------------------------------------------------

function setFigure(id, text) {
  const [number, unit] = split(text);
  $(id).replaceChildren(number, ...(unit ? [h("span", { class: "unit" }, unit)] : []));
}

function showStatus(text, kind) {
  const pill = $("status");
  if (pill.textContent !== text) pill.textContent = text;
  pill.className = `pill ${kind}`;
}

function showOverview(view) {
  state.overview = view;
  const blocking = view.problems.filter((one) => one.blocking).length;
  showStatus(view.ready ? (view.problems.length ? `Ready, ${view.problems.length} to look at` : "Ready") : blocking ? "Not ready" : "Starting", view.ready ? (view.problems.length ? "warn" : "good") : "bad");
  const first = view.candidates.length === 0;
  $("problems").replaceChildren(...(first ? view.problems.filter((one) => !one.blocking) : view.problems).map(problem));
  $("problems").hidden = $("problems").children.length === 0;
  if (first && $("first-model").hidden) showRecipes();
  $("first-model").hidden = !first;
  $("tiles").hidden = $("columns").hidden = first;
  showTiles(view);
  $("models").replaceChildren(...view.candidates.map(candidateCard));
  $("more-models").hidden = view.candidates.length <= SHOWN_MODELS || $("models").classList.contains("all");
  $("more-models").textContent = `Show all ${view.candidates.length}`;
  $("scorer").textContent = view.scorer_is_prior ? `scored by ${view.scorer}: declared strength, size and price; nothing learned yet` : `scored by the encoder ${view.scorer}`;
  $("version").textContent = `Orbweaver ${view.version}`;
  if (!state.dialTouched) {
    $("quality").value = view.quality;
    showDial();
  }
}

function showTiles(view) {
  const { series, totals, pace, savings } = view;
  setFigure("requests", count(series.reduce((sum, one) => sum + one.requests, 0)));
  bars($("requests-line"), "requests in each half minute", series.map((one) => one.requests), series.map((one) => one.errors));
  $("requests-note").textContent = `in 15 minutes · ${pace.requests_per_s.toFixed(1)}/s now · ${count(totals.errors)} errors, ${count(totals.fallbacks)} fallbacks in all`;
  setFigure("latency", duration(pace.p50_s));
  lines($("latency-line"), "median and 95th percentile of answer time", series.map((one) => one.p50_s), series.map((one) => one.p95_s));
  $("latency-note").textContent = `median · p95 ${duration(pace.p95_s)} · first token ${duration(pace.first_token_p50_s)} · gateway ${duration(pace.overhead_p50_s)}`;
  setFigure("spent", money(totals.cost_usd));
  let sum = 0;
  lines($("spent-line"), "money spent over the last 15 minutes", series.map((one) => (sum += one.cost_usd)));
  $("spent-note").textContent = `since the start · ${count(totals.tokens_in)} tokens in, ${count(totals.tokens_out)} out${totals.unpriced ? ` · ${count(totals.unpriced)} without a price` : ""}`;
  showSavings(savings);
}

function showSavings(savings) {
  const known = savings.saved_usd !== null && savings.baseline_cost_usd > 0;
  const paid = savings.compared_cost_usd + savings.router_cost_usd;
  setFigure("saved", known ? percent(savings.saved_usd / savings.baseline_cost_usd) : DASH);
  const most = Math.max(savings.baseline_cost_usd, paid, 1e-12);
  const bar = (kind, value, label) => {
    const one = h("span", { class: kind, role: "img", "aria-label": label, title: label });
    one.style.width = `${(value / most) * 100}%`;
    return one;
  };
  $("saved-bar").replaceChildren(...(known ? [bar("", savings.baseline_cost_usd, `baseline ${money(savings.baseline_cost_usd)}`), bar("paid", paid, `paid ${money(paid)}`)] : []));
  $("saved-note").textContent = known
    ? `${money(savings.saved_usd)}: ${money(paid)} instead of ${money(savings.baseline_cost_usd)} on ${savings.baseline}, ${money(savings.router_cost_usd)} of routing included`
    : savings.baseline ? `against ${savings.baseline}, once auto has answered` : "needs prices: models add --price-in --price-out";
}

function showRecipes() {
  const call = `curl ${base.href}v1/chat/completions -H 'content-type: application/json' \\\n  -d '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'`;
  $("recipes").replaceChildren(
    recipe("A local server (Ollama, vLLM, llama.cpp)", "orbweaver models add local \\\n  --base-url http://127.0.0.1:11434/v1 \\\n  --upstream-model llama3.2"),
    recipe("A provider with a key", "export OPENAI_API_KEY=...   # before orbweaver serve\norbweaver models add large \\\n  --base-url https://api.openai.com/v1 \\\n  --upstream-model MODEL \\\n  --api-key-env OPENAI_API_KEY \\\n  --price-in 2.50 --price-out 10"),
    recipe("Then ask", call));
}

function showDecisions(rows) {
  const list = $("decisions");
  const known = new Set([...list.querySelectorAll("details")].map((one) => one.dataset.id));
  const fresh = rows.filter((row) => !known.has(row.id));
  for (const row of fresh.reverse()) {
    const item = decisionRow(row);
    if (state.newest !== null) item.firstChild.classList.add("fresh");
    list.prepend(item);
  }
  if (rows.length) state.newest = Math.max(state.newest ?? 0, ...rows.map((row) => row.at));
  else state.newest ??= 0;
  // Rows that someone has opened stay until they are closed.
  for (const item of [...list.children].slice(KEPT_ROWS)) if (!item.firstChild.open) item.remove();
  $("decisions-head").hidden = list.children.length === 0;
  $("more-decisions").hidden = list.children.length <= SHOWN_ROWS || list.classList.contains("all");
  $("decisions-empty").hidden = list.children.length > 0 || (state.overview?.candidates.length ?? 0) === 0;
}

// -- the loop --------------------------------------------------------------------------------------------------------

async function refresh() {
  try {
    const { data } = await call("admin/overview", { key: keys.admin() });
    showOverview(data);
    if (!state.paused) {
      // A little overlap: decisions are stored in batches, so one may come late. Known rows are left alone.
      const since = state.newest ? `&since=${state.newest - 5}` : "";
      const decisions = await call(`admin/decisions?limit=${KEPT_ROWS}${since}`, { key: keys.admin() });
      showDecisions(decisions.data.decisions ?? decisions.data.data ?? decisions.data);
    }
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      showStatus("Admin key needed", "warn");
      if (!state.asked) askForKeys(error.message);
    } else if (error instanceof Refused) {
      showStatus("Trouble", "bad");
      showTrouble(error.message);
    } else {
      showStatus("No answer, trying again", "bad");
    }
  }
}

function showTrouble(message) {
  $("problems").replaceChildren(problem({ what: message, fix: "", blocking: true }));
  $("problems").hidden = false;
}

async function loop() {
  clearTimeout(state.timer);
  if (!document.hidden) await refresh();
  state.timer = setTimeout(loop, EVERY_MS);
}

// -- keys and theme --------------------------------------------------------------------------------------------------

function askForKeys(why) {
  state.asked = true;
  if ($("keys").open) return;
  if (why) $("keys-why").textContent = why;
  $("admin-key").value = keys.admin() ?? "";
  $("client-key").value = keys.client() ?? "";
  $("keys").showModal();
}

$("keys").addEventListener("close", () => {
  if ($("keys").returnValue !== "save") return;
  for (const which of ["admin", "client"]) {
    const value = $(`${which}-key`).value.trim();
    if (value) sessionStorage.setItem(`orbweaver.${which}_key`, value);
    else sessionStorage.removeItem(`orbweaver.${which}_key`);
  }
  state.asked = false;
  loop();
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

// -- try it ----------------------------------------------------------------------------------------------------------

const PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

function requestBody() {
  const needs = new Set([...document.querySelectorAll("input[name=need]:checked")].map((one) => one.value));
  const text = $("prompt").value;
  const content = needs.has("vision") ? [{ type: "text", text }, { type: "image_url", image_url: { url: PIXEL } }] : text;
  const body = { model: "auto", messages: [{ role: "user", content }], orbweaver: { quality: Number($("quality").value) } };
  if (needs.has("tools")) body.tools = [{ type: "function", function: { name: "look_up", description: "Look a fact up.", parameters: { type: "object", properties: { query: { type: "string" } } } } }];
  if (needs.has("json_schema")) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: { type: "object", properties: { answer: { type: "string" } }, required: ["answer"], additionalProperties: false }, strict: true } };
  return body;
}

function showFailure(place, error) {
  const message = error instanceof Refused ? error.message : "The gateway does not answer.";
  place.replaceChildren(h("p", { class: "failure", role: "alert" }, message));
  place.hidden = false;
  if (error instanceof Refused && error.status === 401) askForKeys(error.message);
}

async function busy(button, work) {
  button.disabled = true;
  try { await work(); } finally { button.disabled = false; }
}

async function rank() {
  try {
    const { data } = await call("v1/route", { body: requestBody(), key: keys.client() });
    $("ranking").replaceChildren(verdictLine(data), ranking(data));
  } catch (error) {
    showFailure($("ranking"), error);
  }
}

async function ask() {
  if (!$("try").reportValidity()) return;
  await rank();
  const place = $("answer");
  place.replaceChildren(h("p", { class: "note" }, "Waiting for the answer …"));
  place.hidden = false;
  try {
    const { data, headers } = await call("v1/chat/completions", { body: requestBody(), key: keys.client() });
    const message = data?.choices?.[0]?.message ?? {};
    const text = message.content ?? (message.tool_calls ? JSON.stringify(message.tool_calls, null, 2) : "");
    place.replaceChildren(
      h("p", { class: "note" }, `answered by ${headers.get("x-orbweaver-model") ?? data?.model ?? "?"}`),
      h("p", { class: "text" }, text), judge(headers.get("x-orbweaver-decision-id")));
    loop();
  } catch (error) {
    showFailure(place, error);
  }
}

function judge(decision) {
  if (!decision) return null;
  const box = h("div", { class: "judge" }, h("span", { class: "note" }, "Was it good?"));
  for (const [label, score] of [["Yes", 1], ["Partly", 0.5], ["No", 0]]) {
    const button = h("button", { type: "button", class: "quiet" }, label);
    button.addEventListener("click", async () => {
      try {
        await call("v1/feedback", { body: { decision_id: decision, score }, key: keys.client() });
        box.replaceChildren(h("span", { class: "note" }, "Thank you: noted against the prediction."));
      } catch (error) {
        showFailure(box, error);
      }
    });
    box.append(button);
  }
  return box;
}

function showDial() {
  $("quality-value").textContent = Number($("quality").value).toFixed(2);
}

// -- wiring ----------------------------------------------------------------------------------------------------------

$("address").textContent = `${base.href}v1`;
$("first-call").textContent = `curl ${base.href}v1/chat/completions -H 'content-type: application/json' \\\n  -d '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'`;
$("copy-address").addEventListener("click", () => copyText(`${base.href}v1`, $("copy-address")));
$("open-keys").addEventListener("click", () => askForKeys(null));
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("orbweaver.theme", next);
  setTheme(next);
});
$("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  $("pause").textContent = state.paused ? "Go on" : "Pause";
});
for (const [button, list] of [["more-decisions", "decisions"], ["more-models", "models"]]) {
  $(button).addEventListener("click", () => {
    $(list).classList.add("all");
    $(button).hidden = true;
  });
}
$("quality").addEventListener("input", () => { state.dialTouched = true; showDial(); });
$("try").addEventListener("submit", (event) => { event.preventDefault(); busy($("rank"), rank); });
$("ask").addEventListener("click", () => busy($("ask"), ask));
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) $("try").requestSubmit();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) loop(); });

setTheme(localStorage.getItem("orbweaver.theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
showDial();
loop();
