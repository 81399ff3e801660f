"use strict";
// The pictures of an X-ray, and the block that is looked at: a click in the drawing or in a picture marks it everywhere.
document.addEventListener("DOMContentLoaded", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  for (const section of document.querySelectorAll("section.xray")) {
    const data = JSON.parse(section.querySelector(".xray-data").textContent);
    if (data.names.length) new Xray(section, data, dark);
  }
});

const SIGNS = { healthy: "✓", unusual: "~", affected: "!", ill: "✕" };

class Xray {
  constructor(section, data, dark) {
    this.section = section;
    this.data = data;
    this.dark = dark;
    this.views = new Map();
    this.blocks = [...section.querySelectorAll("button.block")];
    this.details = section.querySelector(".details");
    this.bar = section.querySelector(".bar");
    section.addEventListener("click", (event) => this.clicked(event.target.closest("[data-index]")));
    section.querySelector(".net").addEventListener("keydown", (event) => this.typed(event));
    this.bar.querySelector(".before").addEventListener("click", () => this.pick(this.picked - 1));
    this.bar.querySelector(".behind").addEventListener("click", () => this.pick(this.picked + 1));
    section.querySelector(".numbers").addEventListener("toggle", () => this.fillTable(), { once: true });
    this.pick(data.picked);
    this.bar.hidden = false;
    // Each picture is drawn when it is about to be seen, so that a net of many blocks opens at once.
    this.seen = new IntersectionObserver((entries) => this.seeing(entries), { rootMargin: "300px" });
    for (const figure of section.querySelectorAll("figure")) this.seen.observe(figure);
    addEventListener("beforeprint", () => section.querySelectorAll("figure").forEach((figure) => this.draw(figure)));
    dark.addEventListener("change", () => [...this.views.keys()].forEach((figure) => this.draw(figure, true)));
  }

  // --- The block that is looked at ---

  clicked(target) {
    if (target) this.pick(Number(target.dataset.index));
  }

  typed(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -this.picked, End: this.blocks.length - 1 - this.picked };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.pick(this.picked + steps[event.key]);
    this.blocks[this.picked].focus();
  }

  pick(index) {
    if (!(index >= 0 && index < this.blocks.length)) return;
    const before = this.blocks[this.picked];
    before?.classList.remove("picked");
    before?.removeAttribute("aria-current");
    before?.setAttribute("tabindex", "-1");
    this.picked = index;
    const block = this.blocks[index];
    block.classList.add("picked");
    block.setAttribute("aria-current", "true");
    block.setAttribute("tabindex", "0");
    this.fillDetails();
    for (const [figure, view] of this.views) {
      if (view && this.data.pictures[figure.dataset.picture].by_depth) view.signal("picked", index + 1).runAsync();
    }
  }

  fillDetails() {
    const { data, picked } = this;
    const level = data.levels[picked];
    const head = element("p", "which", `Block ${picked + 1} of ${data.names.length}`);
    const name = element("h3", "name", data.names[picked]);
    const shape = data.shapes[picked] && `hands on ${data.shapes[picked]} numbers`;
    const kind = element("p", "soft", [data.kinds[picked], shape].filter(Boolean).join("; "));
    const health = element("p", `health ${level}`, "");
    health.append(element("span", "sign", SIGNS[level]), ` ${level}`);
    const faults = [];
    for (const number of data.advice[picked] ?? []) {
      const entry = this.section.querySelectorAll(".advice > li")[number];
      faults.push(...[...entry.children].map((part) => part.cloneNode(true)));
    }
    for (const words of data.suffers[picked] ?? []) faults.push(element("p", "", `${words}.`));
    const box = element("div", "faults", "");
    box.append(...faults);
    const parts = faults.length ? [head, name, kind, health, box, this.ownNumbers()] : [head, name, kind, health, this.ownNumbers()];
    this.details.replaceChildren(...parts);
    this.bar.querySelector("span").replaceChildren(
      element("span", `sign ${level}`, SIGNS[level]), ` block ${picked + 1}: ${data.names[picked]}`);
  }

  ownNumbers() {
    const earlier = Object.keys(this.data.earlier).length > 0;
    const table = element("table", "", "");
    const titles = table.createTHead().insertRow();
    for (const title of ["", "here", ...(earlier ? [this.data.earlier_name] : [])]) titles.append(element("th", "", title));
    const body = table.createTBody();
    for (const quantity of this.data.quantities) {
      const value = this.data.now[quantity.key][this.picked];
      if (value === null) continue;
      const row = body.insertRow();
      const odd = this.data.odd[this.picked]?.includes(quantity.key);
      const label = element("th", odd ? "odd" : "", quantity.label);
      if (quantity.usual) label.append(element("span", "usual", `usual: ${quantity.usual}`));
      row.append(label, element("td", "", shown(value, quantity.percent)));
      if (earlier) row.append(element("td", "", shown(this.data.earlier[quantity.key][this.picked], quantity.percent)));
    }
    return table;
  }

  fillTable() {
    const { data } = this;
    const used = data.quantities.filter((quantity) => data.now[quantity.key].some((value) => value !== null));
    const table = element("table", "", "");
    const titles = table.createTHead().insertRow();
    for (const title of ["", "block", "", ...used.map((quantity) => quantity.label)]) titles.append(element("th", "", title));
    const body = table.createTBody();
    data.names.forEach((name, index) => {
      const row = body.insertRow();
      row.dataset.index = index;
      row.append(element("td", "", index + 1), element("th", "", name), element("td", data.levels[index], SIGNS[data.levels[index]]));
      for (const quantity of used) row.append(element("td", "", shown(data.now[quantity.key][index], quantity.percent)));
    });
    this.section.querySelector(".numbers .wide").replaceChildren(table);
  }

  // --- Pictures ---

  seeing(entries) {
    for (const entry of entries) if (entry.isIntersecting) this.draw(entry.target);
  }

  async draw(figure, again = false) {
    if (this.views.has(figure) && !again) return;
    this.views.get(figure)?.finalize();
    this.views.set(figure, null);
    const picture = this.data.pictures[figure.dataset.picture];
    const spec = this.coloured(picture.spec);
    if (picture.by_depth) {
      spec.datasets = { blocks: this.rows(figure.dataset.picture, picture) };
      spec.params[0].value = this.picked + 1;
    }
    const plot = figure.querySelector(".plot");
    const options = { mode: "vega-lite", actions: false, renderer: "canvas", config: this.config(),
      tooltip: { theme: this.dark.matches ? "dark" : "light" } };
    const { view } = await vegaEmbed(plot, spec, options);
    this.views.set(figure, view);
    if (picture.by_depth) {
      view.signal("picked", this.picked + 1).run();
      view.addEventListener("click", (event) => this.pick(this.blockAt(view, event)));
    }
    figure.dataset.drawn = "";
  }

  blockAt(view, event) {
    const canvas = view.container().querySelector("canvas").getBoundingClientRect();
    const x = event.clientX - canvas.left - view.origin()[0];
    const inside = x >= 0 && x <= view.width();
    return inside ? Math.round(view.scale("x").invert(x)) - 1 : -1;
  }

  rows(key, picture) {
    const { now, earlier, names, levels } = this.data;
    const drawable = (value) => (typeof value === "number" && !(picture.log && value <= 0) ? value : null);
    return names.map((name, index) => {
      const value = now[key][index];
      const beside = picture.beside ? now[picture.beside][index] : null;
      const before = earlier[key]?.[index] ?? null;
      const odd = typeof value === "string" ? value : picture.log && value !== null && value <= 0 ? "zero" : null;
      return {
        index: index + 1, left: index + 0.5, right: index + 1.5, block: `${index + 1}: ${name}`, level: levels[index],
        v: drawable(value), w: drawable(beside), b: drawable(before), odd,
        shown_v: shown(value, picture.percent), shown_w: shown(beside, picture.percent), shown_b: shown(before, picture.percent),
      };
    });
  }

  coloured(spec) {
    const style = getComputedStyle(this.section);
    const colour = (_, value) =>
      typeof value === "string" && value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    return JSON.parse(JSON.stringify(spec), colour);
  }

  config() {
    const style = getComputedStyle(this.section);
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
    const words = { labelColor: ink, titleColor: soft, titleFontWeight: "normal" };
    return {
      background: "transparent", font: style.fontFamily, view: { stroke: null },
      axis: { ...words, gridColor: line, domainColor: soft, tickColor: soft, labelOverlap: true, labelFontSize: 11, titleFontSize: 11 },
      legend: words,
    };
  }
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function shown(value, percent) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const digits = Number((percent ? 100 * value : value).toPrecision(3));
  const text = digits && Math.abs(digits) < 1e-4 ? digits.toExponential() : String(digits);
  return `${text}${percent ? " %" : ""}`;
}
