// The short report of a variant on a kernel. Chunks are opened when the first report of theirs is asked for.

const opened = new Map();

function chunk(number) {
  if (!opened.has(number)) opened.set(number, inflate($(`chunk-${number}`).textContent));
  return opened.get(number);
}

async function inflate(text) {
  const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function badge(code) {
  const [sign, word] = INDEX.signs[code];
  return el("span", { class: `badge s-${code}` }, el("span", { class: "sign", "aria-hidden": "true" }, sign), ` ${word}`);
}

function linked(text, address) {
  // Made by the report from a list of its own; looked at again, since this is where it would matter.
  return /^https:\/\//.test(address) ? el("a", { href: address, rel: "noreferrer noopener", target: "_blank" }, text) : text;
}

function item(label, ...content) {
  return el("div", { class: "item" }, el("dt", {}, label), el("dd", {}, content));
}

function claimItems(claims) {
  return claims.map((claim) => el("p", { class: "claimline" },
    el("a", { href: `#view=matrix&claim=${claim}`, title: "Everything about this claim" }, claim), ` ${INDEX.claims[claim] || ""}`));
}

function findingBlock(finding) {
  const place = [finding.step && `step ${finding.step}`, finding.arm !== "main" && `arm ${finding.arm}`].filter(Boolean).join(", ");
  return el("section", { class: `finding ${finding.level === "must" ? "must" : "advice"}` },
    el("h4", {}, el("code", {}, finding.clause), ` ${finding.level === "must" ? "does not hold" : `(${finding.level}) is not met`}`,
      place && el("span", { class: "dim" }, ` at ${place}`)),
    el("dl", {},
      item("expected", finding.expected),
      item("observed", el("strong", {}, finding.observed)),
      finding.claims.length > 0 && item("speaks to", finding.claims.join(", ")),
      finding.documented.length > 0 && item("documented", "The kernel's documentation takes the other side: ",
        finding.documented.map(([text, address]) => linked(text, address)))),
    finding.evidence.length > 0 && el("details", {}, el("summary", {}, `evidence (${finding.evidence.length})`),
      el("pre", {}, finding.evidence.join("\n"))));
}

function logBlock(arm) {
  const marked = arm.log.filter((line) => line[3]).length;
  if (!arm.log.length) return null;
  const list = el("div", { class: "log", tabindex: "0", role: "region", "aria-label": `Kernel log of ${arm.name}` },
    arm.log.map((line) => (line.length === 1
      ? el("div", { class: "gap" }, `${plural(line[0], "line")} left out`)
      : el("div", { class: line[3] ? "line matters" : "line" },
        el("span", { class: "t" }, (line[0] / 1e6).toFixed(6).padStart(11)), el("span", { class: "m" }, line[3] ? "▶ " : "  "),
        el("span", { class: "x" }, line[2])))));
  const only = el("button", {
    type: "button", class: "plain", "aria-pressed": "false",
    onclick: () => only.setAttribute("aria-pressed", String(list.classList.toggle("only"))),
  }, "only what matters");
  return el("details", { open: marked > 0 },
    el("summary", {}, `kernel log: ${plural(arm.log.filter((l) => l.length > 1).length, "line")}, ${marked ? `${marked} that matter` : "none that matters"}`),
    marked > 0 && el("p", { class: "tools" }, only), list);
}

function copied(command) {
  const button = el("button", { type: "button", class: "plain" }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(button.previousSibling);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  // A word of the command is broken only if it is longer than the line.
  const words = command.split(" ").flatMap((word, number) => [number ? " " : "", el("span", {}, word)]);
  return el("div", { class: "command" }, el("code", {}, words), button);
}

function armBlock(arm, many) {
  const facts = Object.entries(arm.facts);
  return el("section", { class: "arm" },
    many && el("h4", {}, "arm ", el("code", {}, arm.name)),
    timeline(arm) || el("p", { class: "dim" }, "Nothing of this arm was observed."),
    logBlock(arm),
    facts.length > 0 && el("details", {}, el("summary", {}, "the machine"), el("dl", {}, facts.map(([k, v]) => item(k, v)))));
}

function reportBlock(details, kernel, code) {
  const report = details.on[kernel];
  const others = INDEX.kernels.map(([name], number) => ({ name, number })).filter(({ number }) => details.on[number]);
  const word = { B: "nothing is known, because", S: "skipped, because" }[code] || "reason";
  return el("article", { class: "report" },
    el("p", { class: "title" }, details.title),
    el("p", { class: "states" }, badge(code), ` on ${INDEX.kernels[kernel][0]} `, el("span", { class: "dim" }, INDEX.kernels[kernel][1]),
      report.seconds ? el("span", { class: "dim" }, ` · ${report.seconds.toFixed(1)} s`) : null),
    others.length > 1 && el("nav", { class: "elsewhere", "aria-label": "The same variant on other kernels" },
      others.map(({ name, number }) => {
        const other = details.codes[number][0];
        return el("a", { class: `badge s-${other}`, href: details.link(number), "aria-current": number === kernel ? "true" : null },
          el("span", { "aria-hidden": "true" }, INDEX.signs[other][0]), ` ${name}`, el("span", { class: "unseen" }, `: ${INDEX.signs[other][1]}`));
      })),
    el("dl", { class: "about" },
      item(details.claims.length === 1 ? "claim" : "claims", claimItems(details.claims)),
      item("norm", details.norm.map(([source, address, quote]) => el("div", { class: "norm" }, linked(source, address), quote && el("blockquote", {}, quote))))),
    report.reasons.map((reason) => el("p", { class: "reason" }, el("b", {}, `${word}: `), reason)),
    report.findings.map(findingBlock),
    report.notes.map((note) => el("p", { class: "reason" }, el("b", {}, "noted: "), note)),
    report.arms.length > 0 && el("h3", {}, "What happened"),
    report.arms.map((arm) => armBlock(arm, report.arms.length > 1)),
    el("h3", {}, "Reproduce"), copied(report.again),
    el("dl", { class: "about" },
      report.known.length > 0 && item("known", report.known.map((row) => el("code", { class: "row" }, row))),
      item("case", el("code", {}, details.where), ` (${details.level})`),
      report.consoles.length > 0 && item("console", report.consoles.map((path) => el("code", { class: "row" }, path)))));
}
