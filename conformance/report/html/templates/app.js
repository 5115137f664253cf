// What is shown is a function of the address's fragment: filters, the open cell, the open variant. So the
// back button works, and an address can be sent to somebody.

const INDEX = JSON.parse($("index").textContent);
const ORDER = Object.keys(INDEX.signs);
const VARIANTS = INDEX.variants.map(([family, name, cell, title, claims, codes, said, part, place]) => ({
  family: INDEX.texts[family],
  caseName: INDEX.texts[name],
  id: cell ? `${INDEX.texts[name]}[${cell}]` : INDEX.texts[name],
  title: INDEX.texts[title],
  claims: claims.map((n) => `S${n}`),
  codes,
  said: said.map((numbers) => numbers.map((n) => INDEX.texts[n])),
  part,
  place,
  searched: null,
}));
const BY_ID = new Map(VARIANTS.map((variant) => [variant.id, variant]));
const KERNEL = new Map(INDEX.kernels.map(([name], number) => [name, number]));

const unfolded = new Set();
let state = {};
let before = {};
let listed = [];
let opener = null;

// -- the address --------------------------------------------------------------------------------

function parsed() {
  const words = new URLSearchParams(location.hash.slice(1));
  const kernel = words.get("kernel") || "";
  return {
    view: words.get("view") === "claims" ? "claims" : "matrix",
    codes: (words.get("status") || "").split("").filter((code) => ORDER.includes(code)),
    claim: words.get("claim") || "",
    kernel: KERNEL.has(kernel) ? kernel : "",
    q: words.get("q") || "",
    row: words.get("row") || "",
    on: words.get("on") || "",
    open: words.get("open") || "",
  };
}

function address(changes) {
  const next = { ...state, ...changes };
  const words = new URLSearchParams();
  if (next.view === "claims") words.set("view", "claims");
  if (next.codes.length) words.set("status", next.codes.join(""));
  for (const name of ["claim", "kernel", "q", "row", "on", "open"]) if (next[name]) words.set(name, next[name]);
  return `#${words}`;
}

function go(changes, replace) {
  const next = address(changes);
  if (replace) {
    history.replaceState(null, "", next);
    render();
  } else {
    location.hash = next;
  }
}

// -- what is chosen -----------------------------------------------------------------------------

function matcher() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  return (variant, kernel) => {
    const code = variant.codes[kernel];
    if (!code || (state.codes.length && !state.codes.includes(code[0]))) return false;
    if (!words.length) return true;
    variant.searched ||= variant.said.map((said) =>
      [variant.family, variant.id, variant.title, ...variant.claims, ...said].join(" ").toLowerCase());
    return words.every((word) => variant.searched[kernel].includes(word));
  };
}

function columns() {
  return state.kernel ? [KERNEL.get(state.kernel)] : INDEX.kernels.map((_, number) => number);
}

function chosen() {
  return state.claim ? VARIANTS.filter((variant) => variant.claims.includes(state.claim)) : VARIANTS;
}

// -- the matrix ---------------------------------------------------------------------------------

function counted(variants, kernel, matches) {
  const counts = {};
  let advised = 0;
  for (const variant of variants) {
    if (!matches(variant, kernel)) continue;
    const code = variant.codes[kernel];
    counts[code[0]] = (counts[code[0]] || 0) + 1;
    if (code.length > 1) advised += 1;
  }
  return { counts, advised, total: Object.values(counts).reduce((a, b) => a + b, 0) };
}

function bar(counts, total) {
  let at = 0;
  return svg("svg", { class: "bar", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    ORDER.filter((code) => counts[code]).map((code) => {
      const width = (counts[code] / total) * 100;
      const part = svg("rect", { class: `s-${code}`, x: at, y: 0, width: width.toFixed(2), height: 4 });
      at += width;
      return part;
    }));
}

function tile(row, kernel, { counts, advised, total }) {
  if (!total) return el("td", {}, el("span", { class: "tile none", "aria-label": "none" }, "—"));
  const worst = ORDER.find((code) => counts[code]);
  const name = INDEX.kernels[kernel][0];
  const told = ORDER.filter((code) => counts[code]).map((code) => `${counts[code]} ${INDEX.signs[code][1]}`).join(", ");
  const current = state.row === row && state.on === name;
  return el("td", {}, el("button", {
    type: "button", class: `tile s-${worst}`, "data-row": row, "data-on": name, tabindex: "-1",
    "aria-label": `${row.slice(row.indexOf(":") + 1)} on ${name}: ${told}${advised ? `, ${advised} with advisories` : ""}`,
    "aria-expanded": String(current), title: told,
  },
  el("span", { class: "count" }, el("span", { class: "sign" }, INDEX.signs[worst][0]), ` ${counts[worst]}`),
  el("span", { class: "of" }, worst === "K" ? "known " : "", counts[worst] < total ? `of ${total}` : worst === "K" ? "" : INDEX.signs[worst][1]),
  bar(counts, total)));
}

function matrix() {
  const matches = matcher();
  const shown = columns();
  const groups = new Map();
  let results = 0;
  for (const variant of chosen()) {
    const here = shown.filter((kernel) => matches(variant, kernel)).length;
    if (!here) continue;
    results += here;
    if (!groups.has(variant.family)) groups.set(variant.family, new Map());
    const cases = groups.get(variant.family);
    if (!cases.has(variant.caseName)) cases.set(variant.caseName, []);
    cases.get(variant.caseName).push(variant);
  }
  const rows = [];
  for (const [family, cases] of groups) {
    const all = [...cases.values()].flat();
    const open = unfolded.has(family);
    rows.push(el("tr", { class: open ? "open" : null },
      el("th", { scope: "row" }, el("button", {
        type: "button", class: "family", "aria-expanded": String(open), "data-family": family,
      }, soft(family)), el("span", { class: "release" }, plural(cases.size, "case"))),
      shown.map((kernel) => tile(`family:${family}`, kernel, counted(all, kernel, matches)))));
    if (open) {
      for (const [name, variants] of cases) {
        rows.push(el("tr", { class: "case" }, el("th", { scope: "row", title: variants[0].title }, soft(name)),
          shown.map((kernel) => tile(`case:${name}`, kernel, counted(variants, kernel, matches)))));
      }
    }
  }
  if (!rows.length) {
    rows.push(el("tr", {}, el("td", { class: "empty", colspan: shown.length + 1 }, "No result is like that. ",
      el("a", { href: "#" }, "Clear the filters"))));
  }
  heads($("matrix"), shown);
  $("rows").replaceChildren(...rows);
  rove($("rows"));
  $("found").textContent = results === VARIANTS.reduce((n, v) => n + v.codes.filter(Boolean).length, 0)
    ? "" : `${plural(results, "result")} in ${plural(groups.size, "family", "families")}`;
}

function heads(section, shown) {
  section.querySelectorAll("thead th").forEach((head, number) => {
    head.hidden = number > 0 && !shown.includes(number - 1);
  });
}

// -- the claims ---------------------------------------------------------------------------------

function claims() {
  const words = { F: ["✗", "fails"], P: ["✓", "holds"], S: ["-", "not applicable"], N: ["", "not tested"] };
  const shown = columns();
  heads($("claims"), shown);
  $("standings").replaceChildren(...Object.entries(INDEX.claims).map(([claim, text]) => el("tr", {},
    el("th", { scope: "row" }, el("b", {}, claim), " ", el("span", { class: "says" }, text)),
    shown.map((kernel) => {
      const [code, failed, advised] = INDEX.standing[claim][kernel];
      const [sign, word] = words[code];
      const name = INDEX.kernels[kernel][0];
      const more = [failed && plural(failed, "case"), advised && plural(advised, "advisory", "advisories")].filter(Boolean).join(", ");
      const content = [el("span", { class: "count" }, el("span", { class: "sign" }, sign), ` ${word}`), el("span", { class: "of" }, more)];
      if (code === "N") return el("td", {}, el("span", { class: "tile none" }, content));
      return el("td", {}, el("button", {
        type: "button", class: `tile s-${code}`, "data-row": `claim:${claim}`, "data-on": name, tabindex: "-1",
        "aria-expanded": String(state.row === `claim:${claim}` && state.on === name),
        "aria-label": `${claim} ${word} on ${name}${more ? `: ${more}` : ""}`,
      }, content));
    }))));
  rove($("standings"));
}

// -- the panel ----------------------------------------------------------------------------------

function members() {
  const [kind, name] = [state.row.slice(0, state.row.indexOf(":")), state.row.slice(state.row.indexOf(":") + 1)];
  const kernel = KERNEL.get(state.on);
  const is = {
    family: (v) => v.family === name, case: (v) => v.caseName === name, claim: (v) => v.claims.includes(name),
  }[kind];
  if (!is || kernel === undefined) return { kind, name, kernel, variants: [] };
  const matches = matcher();
  const from = kind === "claim" ? VARIANTS : chosen();
  const variants = from.filter((v) => is(v) && matches(v, kernel));
  variants.sort((a, b) => ORDER.indexOf(a.codes[kernel][0]) - ORDER.indexOf(b.codes[kernel][0]));
  return { kind, name, kernel, variants };
}

function panelHead(title, under, back) {
  return el("header", { class: "panelhead" },
    back ? el("a", { class: "plain", href: back, "aria-label": "Back to the variants" }, "←") : null,
    el("div", {}, el("h2", { tabindex: "-1" }, title), under && el("p", { class: "dim" }, under)),
    el("a", { class: "plain close", href: address({ row: "", on: "", open: "" }), "aria-label": "Close" }, "✕"));
}

function listPanel() {
  const { kind, name, kernel, variants } = members();
  listed = variants.map((variant) => variant.id);
  const rows = variants.map((variant) => {
    const code = variant.codes[kernel];
    return el("li", {}, el("a", { class: "variant", href: address({ open: variant.id }), "data-id": variant.id },
      el("span", { class: `mark s-${code[0]}`, title: INDEX.signs[code[0]][2] }, INDEX.signs[code[0]][0], el("span", { class: "unseen" }, INDEX.signs[code[0]][1])),
      el("span", { class: "what" }, el("code", {}, soft(variant.id)),
        el("span", { class: "said" }, [code[0] === "K" ? "known" : "", ...variant.said[kernel].slice(0, 3)].filter(Boolean).join(" · ") || INDEX.signs[code[0]][1]))));
  });
  return [
    panelHead(kind === "claim" ? `${name} ${INDEX.claims[name] || ""}` : name, `${plural(variants.length, "variant")} on ${state.on}`),
    rows.length ? el("ul", { class: "variants" }, rows) : el("p", { class: "empty" }, "Nothing here is like the filters."),
  ];
}

async function reportPanel() {
  const variant = BY_ID.get(state.open);
  const kernel = KERNEL.get(state.on);
  if (!variant || kernel === undefined || !variant.codes[kernel]) {
    return [panelHead("Not in this report", `${state.open} on ${state.on}`)];
  }
  if (!listed.includes(variant.id)) listed = members().variants.map((v) => v.id);
  const details = (await chunk(variant.part))[variant.place];
  const link = (number) => address({ on: INDEX.kernels[number][0] });
  return [
    panelHead(el("code", {}, soft(variant.id)), null, state.row ? address({ open: "" }) : null),
    reportBlock({ ...details, codes: variant.codes, link }, kernel, variant.codes[kernel][0]),
  ];
}

async function panel() {
  const shown = Boolean(state.open || state.row);
  const asked = location.hash;
  const node = $("panel");
  let content = [];
  if (shown) {
    try {
      content = state.open ? await reportPanel() : listPanel();
    } catch (error) {
      content = [panelHead("This report cannot be opened", `${error}`),
        el("p", { class: "empty" }, "The file is damaged, or the browser too old (it must have DecompressionStream).")];
    }
    if (asked !== location.hash) return; // another one was asked for meanwhile
  }
  node.replaceChildren(...content);
  for (const log of node.querySelectorAll(".log")) {
    const first = log.querySelector(".matters");
    if (first) log.scrollTop = Math.max(0, first.offsetTop - log.offsetTop - 60);
  }
  node.hidden = !shown;
  document.body.classList.toggle("paneled", shown);
  if (shown && (before.row !== state.row || before.on !== state.on || before.open !== state.open)) {
    node.scrollTop = 0;
    const back = before.open && !state.open && node.querySelector(`[data-id="${CSS.escape(before.open)}"]`);
    (back || node.querySelector("h2"))?.focus({ preventScroll: !back });
  } else if (!shown && opener) {
    document.querySelector(`[data-row="${CSS.escape(opener.row)}"][data-on="${CSS.escape(opener.on)}"]`)?.focus();
    opener = null;
  }
  before = { ...state };
  document.documentElement.dataset.ready = asked || "#";
}

// -- filters and keys ---------------------------------------------------------------------------

const form = $("filters");

function filters() {
  for (const button of form.querySelectorAll("[data-code]")) {
    button.setAttribute("aria-pressed", String(state.codes.includes(button.dataset.code)));
  }
  for (const name of ["q", "claim", "kernel"]) if (form.elements[name].value !== state[name]) form.elements[name].value = state[name];
  form.querySelector("[type=reset]").hidden = !(state.codes.length || state.claim || state.kernel || state.q);
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    link.href = address({ view: link.dataset.view, row: "", on: "", open: "" });
  }
}

function rove(body) {
  // One tile takes the tab key, the arrows go on from there.
  const tiles = body.querySelectorAll("button.tile");
  const current = body.querySelector("button.tile[aria-expanded=true]") || tiles[0];
  if (current) current.tabIndex = 0;
}

function move(tile_, down, right) {
  const body = tile_.closest("tbody");
  const rows = [...body.rows];
  const cell = tile_.closest("td");
  let [r, c] = [rows.indexOf(cell.parentNode), cell.cellIndex];
  for (;;) {
    r += down;
    c += right;
    const next = rows[r]?.cells[c];
    if (!next || c < 1) return;
    const target = next.querySelector("button.tile");
    if (target) {
      body.querySelectorAll("button.tile[tabindex='0']").forEach((one) => { one.tabIndex = -1; });
      target.tabIndex = 0;
      target.focus();
      return;
    }
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => go({ q: form.elements.q.value, claim: form.elements.claim.value, kernel: form.elements.kernel.value }, true));
form.addEventListener("reset", (event) => {
  event.preventDefault();
  go({ codes: [], claim: "", kernel: "", q: "" }, true);
});
form.addEventListener("click", (event) => {
  const code = event.target.closest("[data-code]")?.dataset.code;
  if (code) go({ codes: state.codes.includes(code) ? state.codes.filter((c) => c !== code) : [...state.codes, code] }, true);
});

document.addEventListener("click", (event) => {
  const family = event.target.closest("[data-family]")?.dataset.family;
  if (family) {
    if (!unfolded.delete(family)) unfolded.add(family);
    render();
    document.querySelector(`[data-family="${CSS.escape(family)}"]`)?.focus();
  }
  const cell = event.target.closest("button.tile");
  if (cell) {
    opener = { row: cell.dataset.row, on: cell.dataset.on };
    go({ row: cell.dataset.row, on: cell.dataset.on, open: "" });
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, select, textarea");
  const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (event.key === "Escape") {
    if (typing && form.elements.q.value) go({ q: "" }, true);
    else if (state.open && state.row) go({ open: "" });
    else if (state.row || state.open) go({ row: "", on: "", open: "" });
  } else if (typing) {
    return;
  } else if (event.key === "/") {
    form.elements.q.focus();
  } else if (arrows && event.target.matches("button.tile")) {
    move(event.target, ...arrows);
  } else if (arrows && arrows[0] && event.target.matches("#panel h2, .variant")) {
    const links = [...$("panel").querySelectorAll(".variant")];
    links[links.indexOf(event.target) + arrows[0]]?.focus();
    if (!links.length) return;
  } else if ((event.key === "j" || event.key === "k") && state.open) {
    const next = listed[listed.indexOf(state.open) + (event.key === "j" ? 1 : -1)];
    if (next) go({ open: next });
  } else {
    return;
  }
  event.preventDefault();
});

function render() {
  state = parsed();
  filters();
  $("matrix").hidden = state.view !== "matrix";
  $("claims").hidden = state.view !== "claims";
  if (state.view === "claims") claims();
  else matrix();
  panel();
}

window.addEventListener("hashchange", render);
form.hidden = false;
document.querySelector(".keys").hidden = false;
document.body.classList.add("live");
render();
