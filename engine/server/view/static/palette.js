// Colours, numbers and small pieces of the page. Colours come from the style sheet.

const $ = (id) => document.getElementById(id);

class Palette {
  constructor() {
    this.read();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.read());
  }

  read() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    for (const name of ["ink", "quiet", "line", "card", "link", "decode", "prefill", "waiting", "preempted",
      "plain", "free", "cached", "used", "grid", "area"]) this[name] = get(name);
    this.decodes = [get("decode"), get("decode-2")];
    this.prefills = [get("prefill"), get("prefill-2")];
    this.shared = [get("shared-1"), get("shared-2")];
    this.isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    this.version = (this.version ?? 0) + 1;
    this.hues = new Map();
  }

  // A request's own colour: neighbours in number are far apart in hue.
  request(number) {
    if (!this.hues.has(number)) {
      if (this.hues.size > 5000) this.hues.clear();
      const turn = ((number * 0.381966 + 0.55) % 1) * 290;
      const hue = turn < 240 ? turn : turn + 70; // violet is for blocks that are shared
      const light = (this.isDark ? 62 : 50) + (number % 3) * 5 - 5;
      this.hues.set(number, `hsl(${hue.toFixed(0)} 55% ${light}%)`);
    }
    return this.hues.get(number);
  }

  // A block used by n requests, n from 2.
  sharedBy(n) {
    const part = Math.min(1, Math.log2(n - 1) / 4);
    const [a, b] = this.shared.map(rgbOf);
    return `rgb(${a.map((value, i) => Math.round(value + (b[i] - value) * part)).join(" ")})`;
  }
}

const pencil = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function rgbOf(colour) {
  pencil.fillStyle = "#000";
  pencil.fillStyle = colour;
  const text = pencil.fillStyle;
  if (text.startsWith("#")) return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  return text.match(/[\d.]+/g).slice(0, 3).map(Number);
}

const grouped = new Intl.NumberFormat("en-US");
const integer = (value) => grouped.format(Math.round(value));

function short(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return value >= 100 || Number.isInteger(value) ? integer(value) : value.toPrecision(2);
}

function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value >= 100) return `${value.toFixed(0)} s`;
  if (value >= 1) return `${value.toFixed(2)} s`;
  const ms = value * 1e3;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part === whole || !part ? 0 : 1)} %` : "–");
const plural = (count, noun) => `${integer(count)} ${noun}${count === 1 ? "" : "s"}`;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function mark(element, colour) {
  element.style.setProperty("--mark", colour);
  return element;
}

function legend(element, entries) {
  element.replaceChildren(...entries.map(([colour, text]) =>
    make("span", {}, mark(make("i"), colour), text)));
}

// A canvas whose pixels are the screen's; draw(context, width, height) in CSS pixels.
class Sheet {
  constructor(canvas, height) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.setHeight(height);
    new ResizeObserver(() => { this.isStale = true; }).observe(canvas);
    this.isStale = true;
  }

  setHeight(height) {
    if (this.height === height) return;
    this.height = height;
    this.canvas.style.height = `${height}px`;
    this.isStale = true;
  }

  get width() {
    return this.canvas.clientWidth;
  }

  begin() {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(this.width * scale);
    const height = Math.round(this.height * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.scale = scale;
    this.isStale = false;
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    this.context.font = '11px system-ui, "DejaVu Sans", sans-serif';
    return this.context;
  }
}

// The next rounder number above a value, for the end of an axis.
function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value * 0.999);
}

const tip = {
  show(event, text) {
    const box = $("tip");
    box.textContent = text;
    box.hidden = false;
    const x = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
    const below = event.clientY + 16;
    const y = below + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 12 : below;
    box.style.left = `${Math.max(8, x)}px`;
    box.style.top = `${Math.max(8, y)}px`;
  },
  hide() {
    $("tip").hidden = true;
  },
};
