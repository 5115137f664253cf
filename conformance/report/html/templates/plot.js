// The plot of an arm: space used by the shortage's gauge, what submitters were told was written, and
// errors, kills and relief over time.

const PLOT = { width: 760, height: 280, left: 64, right: 16, top: 54, bottom: 34 };
const GLYPH = { error: "✗", kill: "†", impose: "▼", relief: "▲", lost: "!" };

function niceStep(range, parts, base) {
  // In binary units for bytes, decimal for seconds: 1, 2 or 5 (1, 2 or 4) of a unit.
  const rough = range / parts || 1;
  const unit = base ** Math.floor(Math.log(rough) / Math.log(base));
  const steps = base === 2 ? [1, 2] : [1, 2, 5, 10];
  return unit * (steps.find((step) => step * unit >= rough) || steps.at(-1));
}

function drawn(arm) {
  const { width, height, left, right, top, bottom } = PLOT;
  const steps = arm.steps;
  if (!steps.length) return null;
  const times = [...arm.used.map((u) => u[0]), ...steps.flatMap((s) => [s[3], s[4]])];
  const from = Math.min(...times);
  const till = Math.max(...times, from + 1);
  const used = arm.used.map((u) => u[1]);
  const written = steps.flatMap((s) => s[6].map((w) => w[1]));
  const most = Math.max(1, ...used, ...written);
  // A limit far above anything that was used would press the rest to the bottom.
  const limits = arm.used.map((u) => u[2]).filter((l) => l !== null && l <= most * 2);
  const ceiling = Math.max(most, ...limits) * 1.06;
  const x = (t) => left + ((t - from) / (till - from)) * (width - left - right);
  const y = (n) => height - bottom - (n / ceiling) * (height - top - bottom);
  const floor = height - bottom;
  const parts = [];

  const begins = arm.marks.find((m) => m[1] === "impose");
  const ends = arm.marks.find((m) => m[1] === "relief");
  if (begins) {
    const till_ = ends ? x(ends[0]) : width - right;
    parts.push(svg("rect", {
      class: "short", x: x(begins[0]), y: top, width: Math.max(0, till_ - x(begins[0])), height: floor - top,
    }));
  }
  const byBytes = niceStep(ceiling, 4, 2);
  for (let n = 0; n <= ceiling; n += byBytes) {
    parts.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(n), y2: y(n) }));
    parts.push(svg("text", { class: "tick", x: left - 8, y: y(n) + 4, "text-anchor": "end" }, bytes(n)));
  }
  const bySeconds = niceStep((till - from) / 1e6, 6, 10) * 1e6;
  for (let t = Math.ceil(from / bySeconds) * bySeconds; t <= till; t += bySeconds) {
    parts.push(svg("text", { class: "tick", x: x(t), y: height - 3, "text-anchor": "middle" },
      `${Number((t / 1e6).toPrecision(6))} s`));
  }
  steps.forEach((step, number) => {
    const wide = Math.max(1.5, x(step[4]) - x(step[3]));
    parts.push(svg("rect", { class: `step ${number % 2 ? "odd" : ""} ${step[2]}`, x: x(step[3]), y: floor + 2, width: wide, height: 13 },
      svg("title", {}, `${number + 1} ${step[0]} (${step[2] || step[1]}): ${step[5]}`)));
    if (wide > 12) {
      parts.push(svg("text", { class: "number", x: x(step[3]) + wide / 2, y: floor + 12, "text-anchor": "middle" }, number + 1));
    }
  });
  for (const step of steps) {
    if (step[6].length) {
      const points = step[6].map(([t, n]) => `${x(t).toFixed(1)},${y(n).toFixed(1)}`).join(" ");
      parts.push(svg("polyline", { class: "written", points }, svg("title", {}, `${step[0]}: written`)));
    }
  }
  let path = "";
  arm.used.forEach(([t, , limit], index) => {
    if (limit === null || limit > ceiling) return;
    const next = arm.used[index + 1];
    path += `M${x(t).toFixed(1)} ${y(limit).toFixed(1)}H${(next ? x(next[0]) : width - right).toFixed(1)}`;
  });
  if (path) parts.push(svg("path", { class: "limit", d: path }, svg("title", {}, "limit")));
  parts.push(svg("polyline", {
    class: "used", points: arm.used.map(([t, n]) => `${x(t).toFixed(1)},${y(n).toFixed(1)}`).join(" "),
  }));
  for (const [t, n] of arm.used) {
    parts.push(svg("circle", { class: "reading", cx: x(t), cy: y(n), r: 2.6 },
      svg("title", {}, `${seconds(t)}: ${bytes(n)} used`)));
  }
  let lane = -Infinity;
  for (const [t, kind, text, step] of arm.marks) {
    const at = Math.min(Math.max(x(t), left), width - right);
    const word = { impose: "shortage", relief: "relief" }[kind];
    parts.push(svg("line", { class: `mark ${kind}`, x1: at, x2: at, y1: top - 8, y2: floor }));
    const flip = word && at > width - 100;
    // Glyphs that would cover each other: the first stands for all, and the list below has each.
    if (word || at - lane > 9) {
      parts.push(svg("text", {
        class: `glyph ${kind}`, x: at, y: word ? 16 : 38, "text-anchor": word ? (flip ? "end" : "start") : "middle",
      }, word ? (flip ? `${word} ${GLYPH[kind]}` : `${GLYPH[kind]} ${word}`) : GLYPH[kind],
      svg("title", {}, `${seconds(t)}: ${step ? `${step}: ` : ""}${text}`)));
      if (!word) lane = at;
    }
  }
  const label = `Space used over ${seconds(till - from)}: at most ${bytes(Math.max(0, ...used))}. ${plural(arm.marks.length, "event")}, listed below.`;
  return svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, parts);
}

function timeline(arm) {
  const plot = drawn(arm);
  if (!plot) return null;
  const key = (kind, text) => el("span", { class: `key ${kind}` }, text);
  const gauge = arm.gauge && arm.gauge !== "none" ? `space used, by the gauge of ${arm.gauge}` : "space used, by the gauge";
  return el("div", { class: "timeline" },
    el("div", { class: "scroll" }, plot),
    el("p", { class: "plotkey" }, key("used", gauge), key("limit", "limit"),
      key("written", "written by the step, as its submitter was told"), arm.marks.some((m) => m[1] === "error") && key("error", "✗ error"),
      arm.marks.some((m) => m[1] === "kill") && key("kill", "† kill")),
    arm.marks.length > 0 && el("ol", { class: "events" }, arm.marks.map(([t, kind, text, step]) =>
      el("li", { class: kind }, el("span", { class: "t" }, seconds(t)), el("span", { class: "g", "aria-hidden": "true" }, GLYPH[kind]),
        el("span", {}, step && kind === "error" ? `${step}: ${text}` : text)))),
    el("details", { class: "steps" }, el("summary", {}, plural(arm.steps.length, "step")),
      el("div", { class: "scroll" }, el("table", {},
        el("thead", {}, el("tr", {}, ["", "step", "does", "for", "took", "came to"].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, arm.steps.map((s, number) => el("tr", {},
          el("td", {}, number + 1), el("th", { scope: "row" }, s[0]), el("td", {}, s[1]), el("td", {}, s[2]),
          el("td", { class: "n" }, seconds(s[4] - s[3])), el("td", {}, s[5]))))))));
}
