// The small charts over time: throughput, requests, KV use, TTFT, ITL, step time.

const CHART_HEIGHT = 64;
const LIVE_SECONDS = 60;
const RATE_SECONDS = 1;

const CHARTS = [
  { id: "throughput", title: "Throughput, tokens/s", unit: "tokens/s",
    lines: [["answers", "decode"], ["prompts", "prefill"]], text: short },
  { id: "requests", title: "Requests", unit: "requests",
    lines: [["running", "decode"], ["waiting", "waiting"]], text: integer },
  { id: "kv", title: "KV cache in use", unit: "%", most: 100,
    lines: [["of all blocks", "decode"]], text: (v) => `${v.toFixed(v < 10 ? 1 : 0)} %`, area: true },
  { id: "ttft", title: "Time to first token", unit: "s", dots: true,
    lines: [["median", "decode"], ["p99", "prefill"]], text: seconds },
  { id: "itl", title: "Time between tokens", unit: "s",
    lines: [["median", "decode"], ["p99", "prefill"]], text: seconds },
  { id: "step", title: "Step time", unit: "s", lines: [["a step", "decode"]], text: seconds },
];

function quantile(values, share) {
  if (!values.length) return null;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

// Samples over time, oldest first: {t, values: by chart one number a line, or null}.
class Samples {
  constructor() {
    this.clear();
  }

  clear() {
    this.samples = [];
    this.ttft = []; // [time, seconds]
    this.totals = [];
    this.start = this.end = null;
  }

  add(tick, numBlocks, keepAll) {
    const { t, steps, totals, ttft, itl } = tick;
    const last = steps.at(-1)?.[0];
    this.totals.push([t, totals[1], totals[2]]);
    const before = this.before(t - RATE_SECONDS);
    const span = Math.max(t - before[0], RATE_SECONDS / 2);
    this.ttft.push(...ttft);
    const sample = { t, throughput: [(totals[2] - before[2]) / span, (totals[1] - before[1]) / span] };
    const idle = this.samples.at(-1);
    sample.requests = last ? [last[3], last[4]] : idle?.requests ?? [0, 0];
    sample.kv = last ? [(100 * last[5]) / Math.max(numBlocks, 1)] : idle?.kv ?? [0];
    sample.itl = itl ? [itl[1], itl[2]] : null;
    sample.step = steps.length ? [Math.max(...steps.map(([stats]) => stats[2]))] : null;
    this.samples.push(sample);
    this.start ??= t;
    this.end = t;
    if (!keepAll) this.forget(t - 2 * LIVE_SECONDS);
  }

  // The newest totals that are at least so old.
  before(t) {
    let low = 0;
    let high = this.totals.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.totals[middle][0] <= t) low = middle;
      else high = middle - 1;
    }
    return this.totals[low];
  }

  forget(t) {
    while (this.samples.length && this.samples[0].t < t) this.samples.shift();
    while (this.ttft.length && this.ttft[0][0] < t) this.ttft.shift();
    while (this.totals.length > 1 && this.totals[1][0] < t) this.totals.shift();
  }
}

class Charts {
  constructor(palette, samples, onSeek) {
    this.palette = palette;
    this.samples = samples;
    this.cards = CHARTS.map((chart) => this.card(chart, onSeek));
  }

  card(chart, onSeek) {
    const values = chart.lines.map(([name, colour]) => {
      const value = make("dd", { textContent: "–" });
      const label = mark(make("dt", { textContent: name }), `var(--${colour})`);
      return { value, row: make("div", {}, label, value) };
    });
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${chart.title} over time`);
    const card = make("section", { className: "card chart", id: `chart-${chart.id}` },
      make("h2", { textContent: chart.title }),
      make("dl", { className: "now" }, ...values.map((v) => v.row)), canvas);
    $("charts").append(card);
    canvas.addEventListener("click", (event) => {
      const [from, to] = this.window;
      onSeek(from + ((to - from) * event.offsetX) / canvas.clientWidth);
    });
    return { ...chart, sheet: new Sheet(canvas, CHART_HEIGHT), values: values.map((v) => v.value) };
  }

  // until: the last moment to show; cursor: the moment looked at, or null.
  draw(from, until, cursor) {
    this.window = [from, until];
    const at = cursor ?? until;
    const kept = this.samples.samples.filter((s) => s.t >= from && s.t <= until);
    const first = this.samples.ttft.filter(([t]) => t >= from && t <= until);
    for (const card of this.cards) this.drawCard(card, kept, first, at, cursor);
  }

  drawCard(card, kept, first, at, cursor) {
    const [from, until] = this.window;
    const context = card.sheet.begin();
    const { width, height } = card.sheet;
    const isTtft = card.id === "ttft";
    const values = isTtft ? first.map(([, v]) => v) : kept.flatMap((s) => s[card.id] ?? []);
    const most = card.most ?? niceCeiling(values.reduce((a, b) => Math.max(a, b), 0));
    const x = (t) => ((t - from) / Math.max(until - from, 1e-9)) * width;
    const y = (v) => height - 2 - (Math.min(v, most) / most) * (height - 16);
    this.axis(context, card, width, height, values.length ? most : null);
    if (isTtft) this.dots(context, first, x, y);
    else card.lines.forEach(([, colour], i) => this.line(context, card, kept, i, this.palette[colour], x, y));
    if (cursor !== null) {
      context.fillStyle = this.palette.link;
      context.fillRect(Math.round(x(cursor)) - 0.5, 0, 1.5, height);
    }
    this.tell(card, this.valuesAt(card, kept, first, at));
  }

  valuesAt(card, kept, first, at) {
    if (card.id === "ttft") {
      const recent = first.filter(([t]) => t <= at).slice(-100).map(([, v]) => v);
      return [quantile(recent, 0.5), quantile(recent, 0.99)];
    }
    for (let i = kept.length - 1; i >= 0; i--) {
      if (kept[i].t <= at + 1e-9 && kept[i][card.id]) return kept[i][card.id];
    }
    return card.lines.map(() => null);
  }

  tell(card, values) {
    card.values.forEach((element, i) => {
      const text = values[i] === null || values[i] === undefined ? "–" : card.text(values[i]);
      if (element.textContent !== text) element.textContent = text;
    });
  }

  axis(context, card, width, height, most) {
    context.fillStyle = this.palette.grid;
    context.fillRect(0, height - 2, width, 1);
    context.fillRect(0, 14, width, 1);
    if (most === null) return;
    context.fillStyle = this.palette.quiet;
    context.textAlign = "right";
    context.fillText(card.text(most), width, 10);
  }

  line(context, card, kept, index, colour, x, y) {
    context.beginPath();
    let previous = null;
    for (const sample of kept) {
      const value = sample[card.id]?.[index];
      if (value === undefined || value === null) continue;
      // Where nothing was told for long there is a gap.
      if (previous === null || sample.t - previous > 3) context.moveTo(x(sample.t), y(value));
      else context.lineTo(x(sample.t), y(value));
      previous = sample.t;
    }
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke();
    if (!card.area || previous === null) return;
    const shown = kept.filter((sample) => sample[card.id]);
    context.lineTo(x(previous), y(0));
    context.lineTo(x(shown[0].t), y(0));
    context.fillStyle = this.palette.area;
    context.fill();
  }

  dots(context, first, x, y) {
    context.fillStyle = this.palette.decode;
    context.globalAlpha = first.length > 200 ? 0.45 : 0.8;
    for (const [t, value] of first.slice(-4000)) {
      context.fillRect(x(t) - 1.25, y(value) - 1.25, 2.5, 2.5);
    }
    context.globalAlpha = 1;
  }
}
