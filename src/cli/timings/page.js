"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const steps = data.steps;

  // Text is text: no value of the build ever becomes markup.
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const at = (id) => document.getElementById(id);
  const known = (value) => value !== null && value !== undefined;
  const time = (micros) => {
    if (!known(micros)) return "–";
    if (micros < 1000) return `${micros} µs`;
    if (micros < 1e6) return `${(micros / 1e3).toFixed(micros < 1e4 ? 1 : 0)} ms`;
    if (micros < 6e7) return `${(micros / 1e6).toFixed(2)} s`;
    const seconds = Math.round(micros / 1e6);
    return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
  };
  const size = (bytes) => {
    if (!known(bytes)) return "–";
    let value = bytes;
    for (const unit of ["B", "KiB", "MiB", "GiB"]) {
      if (value < 1024 || unit === "GiB") return `${unit === "B" || value >= 100 ? Math.round(value) : value.toFixed(1)} ${unit}`;
      value /= 1024;
    }
    return "–";
  };
  const number = (value) => (known(value) ? value.toLocaleString("en") : "–");
  const sum = (key) => steps.reduce((total, step) => (known(step[key]) ? (total ?? 0) + step[key] : total), null);
  const word = (step) => ({ done: "done", noted: "no layer", skipped: "never begun", running: "not ended" })[step.how] ?? step.how;
  const first = (text) => text.split("\n")[0];

  const head = () => {
    const outcome = at("outcome");
    if (known(data.error)) {
      outcome.className = "failed";
      outcome.textContent = `Failed: ${data.error}`;
    } else {
      outcome.textContent = `Built ${data.image}`;
    }
    const count = (how) => steps.filter((step) => step.how === how).length;
    const figures = [["Time", time(data.wall)], ["Steps", number(steps.length)], ["Done", number(count("done"))],
      ["Cached", number(count("cached") + count("imported"))], ["CPU of steps", time(sum("cpu"))]];
    if (data.total) {
      const { layers, raw, compressed, wasted } = data.total;
      figures.push(["Layers", number(layers)], ["Size", size(raw)], ["Compressed", size(compressed)],
        ["Wasted", raw > 0 ? `${size(wasted)} (${Math.round((100 * wasted) / raw)} %)` : size(wasted)]);
    }
    for (const [name, value] of figures) {
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", "", value));
      at("figures").append(pair);
    }
    at("made").textContent = `${data.program}, begun ${data.began}`;
  };

  // The chart.
  const ends = [data.wall, ...steps.map((step) => step.to ?? 0), ...steps.flatMap((step) => step.spells.map((spell) => spell.to)),
    ...data.asides.map((aside) => aside.to)];
  const whole = Math.max(1, ...ends);
  const tick = (() => {
    const rough = whole / 8;
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  })();
  const bar = (kind, from, to) => {
    const element = make("span", `bar ${kind}`);
    element.style.left = `${(100 * from) / whole}%`;
    element.style.width = `${(100 * Math.max(0, to - from)) / whole}%`;
    return element;
  };
  const kindOf = { cached: "cached", imported: "cached", done: "working", failed: "failed", canceled: "canceled", noted: "working" };

  const tell = (step) => {
    const parts = [`${step.stage} ${step.number} of ${step.of}, ${word(step)}: ${first(step.text)}`];
    if (known(step.wall)) parts.push(`from ${time(step.from)} to ${time(step.to)}, ${time(step.wall)}`);
    for (const spell of step.spells) parts.push(`${spell.at} ${time(spell.to - spell.from)}`);
    return parts.join("; ");
  };
  const lane = (step, index) => {
    const item = make("li");
    const link = make("a", "lane");
    link.id = `bar-${index}`;
    link.href = `#row-${index}`;
    link.setAttribute("aria-label", tell(step));
    link.title = tell(step);
    const name = make("span", "name code");
    name.append(make("b", "", `${step.number}/${step.of}`), first(step.text));
    const track = make("span", "track");
    if (known(step.from)) track.append(bar(kindOf[step.how] ?? "working", step.from, step.to));
    for (const spell of step.spells) track.append(bar(spell.at, spell.from, spell.to));
    const end = known(step.wall) ? time(step.wall) : word(step);
    link.append(name, track, make("span", "end", step.how === "cached" || step.how === "imported" ? word(step) : end));
    item.append(link);
    item.dataset.wall = step.wall ?? 0;
    return item;
  };
  const aside = (each) => {
    const item = make("li");
    const row = make("div", "lane");
    row.tabIndex = 0;
    row.title = `${each.what}, ${time(each.to - each.from)}`;
    row.setAttribute("aria-label", row.title);
    row.setAttribute("role", "img");
    const track = make("span", "track");
    track.append(bar("moving", each.from, each.to));
    row.append(make("span", "name", each.what), track, make("span", "end", time(each.to - each.from)));
    item.append(row);
    item.dataset.wall = each.to - each.from;
    return item;
  };
  const chart = () => {
    const axis = make("div", "axis");
    axis.setAttribute("aria-hidden", "true");
    const marks = make("div", "track");
    for (let mark = 0; mark <= whole; mark += tick) {
      const label = make("span", "", mark === 0 ? "0" : time(mark));
      label.style.left = `${(100 * mark) / whole}%`;
      marks.append(label);
    }
    axis.append(make("span"), marks, make("span"));
    at("chart").style.setProperty("--tick", `${(100 * tick) / whole}%`);
    at("chart").append(axis);
    // Stages in the order of their first steps.
    const stages = new Map();
    steps.forEach((step, index) => {
      if (!stages.has(step.stage)) stages.set(step.stage, []);
      stages.get(step.stage).push(lane(step, index));
    });
    if (data.asides.length > 0) stages.set(null, data.asides.map(aside));
    for (const [stage, lanes] of stages) {
      const title = stage === null ? "outside of the steps" : /^stage-[0-9]+$/.test(stage) ? stage : `stage ${stage}`;
      const list = make("ol");
      list.setAttribute("aria-label", title);
      list.append(...lanes);
      at("chart").append(make("h3", "", title), list);
    }
    at("least").addEventListener("change", (event) => {
      for (const item of at("chart").querySelectorAll("li")) item.hidden = Number(item.dataset.wall) < Number(event.target.value);
    });
  };

  // The table.
  const columns = [
    { name: "#", key: (step, index) => index, show: (step, index) => `${index + 1}` },
    { name: "Stage", key: (step) => step.stage, show: (step) => step.stage, text: true },
    { name: "Instruction", key: (step) => step.text, text: true, wide: true },
    { name: "State", key: (step) => word(step), text: true },
    { name: "Wall", key: (step) => step.wall, show: (step) => time(step.wall), total: () => "" },
    { name: "CPU", key: (step) => step.cpu, show: (step) => time(step.cpu), total: () => time(sum("cpu")) },
    { name: "Peak memory", key: (step) => step.peak, show: (step) => size(step.peak) },
    { name: "Added", key: (step) => step.added, show: (step) => number(step.added), total: () => number(sum("added")) },
    { name: "Changed", key: (step) => step.changed, show: (step) => number(step.changed), total: () => number(sum("changed")) },
    { name: "Deleted", key: (step) => step.deleted, show: (step) => number(step.deleted), total: () => number(sum("deleted")) },
    { name: "Raw", key: (step) => step.raw, show: (step) => size(step.raw), total: () => size(sum("raw")) },
    { name: "Compressed", key: (step) => step.compressed, show: (step) => size(step.compressed), total: () => size(sum("compressed")) },
    { name: "Wasted", key: (step) => step.wasted, show: (step) => size(step.wasted), total: () => size(sum("wasted")) },
  ];
  const instruction = (step) => {
    const lines = step.text.split("\n");
    const reasons = step.why ?? [];
    if (lines.length === 1 && reasons.length === 0) return make("span", "code", step.text);
    const details = make("details");
    details.append(make("summary", "code", lines.length > 1 ? `${lines[0]} …` : lines[0]));
    if (lines.length > 1) details.append(make("pre", "", step.text));
    if (reasons.length > 0) {
      const list = make("ul");
      list.append(...reasons.map((reason) => make("li", "", `not cached: ${reason}`)));
      details.append(list);
    }
    return details;
  };
  const row = (step, index) => {
    const line = make("tr");
    line.id = `row-${index}`;
    for (const column of columns) {
      const cell = make("td", column.wide ? "text wide" : column.text ? "text" : "");
      if (column.name === "#") {
        const link = make("a", "", column.show(step, index));
        link.href = `#bar-${index}`;
        link.setAttribute("aria-label", `step ${index + 1}, to its bar`);
        cell.append(link);
      } else if (column.name === "Instruction") {
        cell.append(instruction(step));
      } else if (column.name === "State") {
        cell.append(make("span", `state is-${step.how}`, word(step)));
      } else {
        cell.textContent = column.show(step, index);
      }
      line.append(cell);
    }
    return line;
  };
  const table = () => {
    const body = at("table").tBodies[0];
    const rows = steps.map((step, index) => ({ step, index, line: row(step, index) }));
    body.append(...rows.map((each) => each.line));
    const heads = make("tr");
    for (const column of columns) {
      const cell = make("th", column.text ? "text" : "");
      cell.scope = "col";
      const button = make("button", "", column.name);
      button.type = "button";
      button.addEventListener("click", () => {
        // Figures are of interest from the largest on.
        const was = cell.getAttribute("aria-sort");
        const up = was ? was === "descending" : Boolean(column.text) || column.name === "#";
        for (const each of heads.children) each.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        const order = (one, other) => {
          const [left, right] = [column.key(one.step, one.index), column.key(other.step, other.index)];
          if (!known(left) || !known(right)) return Number(!known(left)) - Number(!known(right));
          const less = left < right ? -1 : Number(left > right);
          return (up ? less : -less) || one.index - other.index;
        };
        body.append(...[...rows].sort(order).map((each) => each.line));
      });
      cell.append(button);
      heads.append(cell);
    }
    at("table").tHead.append(heads);
    const totals = make("tr");
    columns.forEach((column) => {
      if (column.wide) {
        const cell = make("th", "text", "All steps");
        cell.scope = "row";
        totals.append(cell);
      } else {
        totals.append(make("td", "", column.total ? column.total() : ""));
      }
    });
    at("table").tFoot.append(totals);
  };

  head();
  chart();
  table();
})();
