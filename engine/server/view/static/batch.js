// The batch step by step: above, the tokens of each step stacked by request; below, a lane a
// request. Both show the same steps, so that they can be read together.

const BATCH_HEIGHT = 170;
const LANES_HEIGHT = 190;
const AXIS = 44; // pixels left of the steps
const STEP_WIDTH = 5;
const ENOUGH_LANES = 30; // with so many, those that wait get few
const FEW_WAITING = 6;
const FADED = 0.3; // what does not belong to the followed request

class BatchView {
  constructor(palette, history, onSeek, onFollow) {
    Object.assign(this, { palette, history, onSeek, onFollow });
    this.bars = new Sheet($("batch"), BATCH_HEIGHT);
    this.lanes = new Sheet($("lanes"), LANES_HEIGHT);
    for (const sheet of [this.bars, this.lanes]) {
      sheet.canvas.addEventListener("pointermove", (event) => this.hover(event, sheet));
      sheet.canvas.addEventListener("pointerleave", () => tip.hide());
      sheet.canvas.addEventListener("click", (event) => this.click(event, sheet));
    }
    this.tellColours("kind");
  }

  tellColours(colourBy) {
    const others = [["var(--waiting)", "waiting"], ["var(--preempted)", "preempted"]];
    legend($("batch-legend"), colourBy === "kind"
      ? [["var(--prefill)", "prefill"], ["var(--decode)", "decode"], ...others]
      : [["var(--prefill)", "prefill, in the lanes"], ["var(--rainbow)", "a colour a request"], ...others]);
  }

  // The steps that fit, the one that is looked at among them.
  range(cursor) {
    const room = Math.max(10, Math.floor((this.bars.width - AXIS) / STEP_WIDTH));
    const { first, end } = this.history;
    const last = Math.min(end, Math.max(cursor + 1 + Math.floor(room / 4), first + room));
    const live = cursor >= end - 1;
    const stop = live ? end : last;
    return [Math.max(first, stop - room), stop, room];
  }

  draw(cursor, view) {
    const [from, stop, room] = this.range(cursor);
    this.from = from;
    this.stop = stop;
    this.cursor = cursor;
    this.offset = AXIS + (this.history.frames.length < room ? 0 : this.bars.width - AXIS - room * STEP_WIDTH);
    const frames = this.history.frames.slice(from - this.history.first, stop - this.history.first);
    // Nothing fades for a request that has no part in these steps.
    const isHere = frames.some((frame) => phaseOf(frame, view.followed));
    this.view = isHere ? view : { ...view, followed: null };
    this.drawBars(frames, cursor);
    this.drawLanes(frames, cursor);
    this.tell(this.history.frame(cursor));
  }

  x(ordinal) {
    return this.offset + (ordinal - this.from) * STEP_WIDTH;
  }

  drawBars(frames, cursor) {
    const context = this.bars.begin();
    const { width, height } = this.bars;
    const base = height - 16;
    const most = niceCeiling(frames.reduce((a, f) => Math.max(a, f.tokens), 1));
    const scale = (base - 14) / most;
    this.grid(context, width, base, most, scale);
    for (const frame of frames) {
      const x = this.x(frame.ordinal);
      if (frame.isWhole) this.stack(context, frame, x, base, scale);
      else this.totals(context, frame, x, base, scale);
      if (frame.preempted) this.flag(context, x, base - Math.max(frame.tokens * scale, 1) - 3);
    }
    this.steps(context, frames, height);
    this.showCursor(context, cursor, height);
  }

  grid(context, width, base, most, scale) {
    const { palette } = this;
    context.textAlign = "right";
    for (const part of [0, 0.5, 1]) {
      const y = Math.round(base - part * most * scale);
      context.fillStyle = palette.grid;
      context.fillRect(AXIS, y, width - AXIS, 1);
      context.fillStyle = palette.quiet;
      context.fillText(short(part * most), AXIS - 6, y + 4);
    }
    context.textAlign = "left";
    context.fillText("tokens a step", AXIS + 4, 10);
  }

  // Decodes below, prompts on top of them.
  stack(context, frame, x, base, scale) {
    const { rows } = frame;
    const { colourBy, followed } = this.view;
    let top = base;
    for (const wantsPrefill of [false, true]) {
      for (let i = 0; i < rows.length; i += 4) {
        if (rows[i + 2] > 0 !== wantsPrefill) continue;
        const height = rows[i + 1] * scale;
        context.fillStyle = this.rowColour(rows[i], wantsPrefill, colourBy);
        context.globalAlpha = followed === null || rows[i] === followed ? 1 : FADED;
        context.fillRect(x, top - height, STEP_WIDTH - 1, Math.max(height, 0.6));
        top -= height;
      }
    }
    context.globalAlpha = 1;
  }

  rowColour(number, isPrefill, colourBy) {
    if (colourBy === "request") return this.palette.request(number);
    return (isPrefill ? this.palette.prefills : this.palette.decodes)[number % 2];
  }

  // A step of which only sums are known.
  totals(context, frame, x, base, scale) {
    context.globalAlpha = this.view.followed !== null ? FADED : frame.rows ? 1 : 0.55;
    context.fillStyle = this.palette.decode;
    context.fillRect(x, base - frame.decode * scale, STEP_WIDTH - 1, frame.decode * scale);
    context.fillStyle = this.palette.prefill;
    context.fillRect(x, base - frame.tokens * scale, STEP_WIDTH - 1, frame.prefill * scale);
    context.globalAlpha = 1;
  }

  flag(context, x, y) {
    context.fillStyle = this.palette.preempted;
    context.beginPath();
    context.moveTo(x + STEP_WIDTH / 2 - 0.5, y);
    context.lineTo(x - 2.5, y - 7);
    context.lineTo(x + STEP_WIDTH + 1.5, y - 7);
    context.fill();
  }

  steps(context, frames, height) {
    context.fillStyle = this.palette.quiet;
    context.textAlign = "center";
    for (const frame of frames) {
      const x = this.x(frame.ordinal) + STEP_WIDTH / 2;
      if (frame.ordinal % 25 === 0 && x > AXIS + 14) context.fillText(integer(frame.step), x, height - 3);
    }
  }

  showCursor(context, cursor, height) {
    if (cursor < this.from) return;
    context.strokeStyle = this.palette.link;
    context.lineWidth = 1.5;
    context.strokeRect(this.x(cursor) - 1, 0.75, STEP_WIDTH + 1, height - 1.5);
  }

  drawLanes(frames, cursor) {
    const context = this.lanes.begin();
    const { height } = this.lanes;
    const chosen = this.chosen(frames, Math.floor(height / 3));
    this.laneOf = new Map(chosen.map((number, lane) => [number, lane]));
    this.laneHeight = Math.max(3, Math.min(12, Math.floor(height / Math.max(this.laneOf.size, 1))));
    const thick = this.laneHeight > 4 ? this.laneHeight - 1 : this.laneHeight - 0.5;
    this.laneLabels(context, thick);
    for (const frame of frames) this.drawColumn(context, frame, thick);
    this.showCursor(context, cursor, height);
    if (!chosen.length) {
      context.fillStyle = this.palette.quiet;
      context.textAlign = "left";
      context.fillText("a lane for each request: waiting, prefill, decode", AXIS + 4, 12);
    }
    context.fillStyle = this.palette.line;
    context.fillRect(AXIS - 1, 0, 1, Math.min(height, this.laneOf.size * this.laneHeight));
  }

  // The requests that get a lane: first those that ran, the last ones if there are too many, then
  // those that wait, the next one first.
  chosen(frames, most) {
    const ran = new Set();
    const waits = new Set();
    for (const frame of frames) {
      for (let i = 0; i < (frame.rows?.length ?? 0); i += 4) ran.add(frame.rows[i]);
      for (const { number } of frame.preemptions) ran.add(number);
      for (const number of frame.waits ?? []) waits.add(number);
    }
    const { followed } = this.view;
    const runners = [...ran].sort((a, b) => a - b);
    const kept = new Set(runners.slice(-most));
    const room = Math.min(most, Math.max(kept.size + FEW_WAITING, ENOUGH_LANES));
    for (const number of waits) {
      if (kept.size >= room) break;
      kept.add(number);
    }
    if (followed !== null && (ran.has(followed) || waits.has(followed))) kept.add(followed);
    this.numLanesHidden = new Set([...ran, ...waits]).size - kept.size;
    return [...kept].sort((a, b) => a - b);
  }

  laneLabels(context, thick) {
    for (const [number, lane] of this.laneOf) {
      const y = lane * this.laneHeight;
      context.fillStyle = this.view.colourBy === "request" ? this.palette.request(number) : this.palette.line;
      if (number === this.view.followed) context.fillStyle = this.palette.link;
      context.fillRect(AXIS - 10, y, 6, thick);
    }
    context.fillStyle = this.palette.quiet;
    context.save();
    context.translate(12, this.lanes.height / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText("requests", 0, 0);
    context.restore();
  }

  drawColumn(context, { ordinal, rows, waits, preemptions }, thick) {
    const x = this.x(ordinal);
    const { followed, colourBy } = this.view;
    const cell = (number, colour, width = STEP_WIDTH - 0.5) => {
      const lane = this.laneOf.get(number);
      if (lane === undefined) return;
      context.fillStyle = colour;
      context.fillRect(x, lane * this.laneHeight, width, thick);
    };
    context.globalAlpha = 0.55;
    for (const number of waits ?? []) cell(number, this.palette.waiting);
    context.globalAlpha = 1;
    for (let i = 0; i < (rows?.length ?? 0); i += 4) {
      const number = rows[i];
      const isPrefill = rows[i + 2] > 0;
      let colour = isPrefill ? this.palette.prefill : this.palette.decode;
      if (colourBy === "request" && !isPrefill) colour = this.palette.request(number);
      context.globalAlpha = followed === null || followed === number ? 1 : FADED;
      cell(number, colour);
    }
    context.globalAlpha = 1;
    for (const { number } of preemptions) cell(number, this.palette.preempted);
  }

  tell(frame) {
    const text = frame ? describeStep(frame) : "";
    const hidden = this.numLanesHidden ? ` ${plural(this.numLanesHidden, "more request")} without a lane.` : "";
    const whole = text + this.thinness() + hidden;
    if ($("batch-text").textContent !== whole) $("batch-text").textContent = whole;
  }

  // A quick server takes more steps than can be told.
  thinness() {
    const [from, last] = [this.history.frame(this.from), this.history.frame(this.stop - 1)];
    const part = from && last ? (last.step - from.step + 1) / (this.stop - this.from) : 1;
    return part >= 1.5 ? ` About one of ${Math.round(part)} steps is shown.` : "";
  }

  place(event, sheet) {
    const ordinal = this.from + Math.floor((event.offsetX - this.offset) / STEP_WIDTH);
    const frame = ordinal >= this.from && ordinal < this.stop ? this.history.frame(ordinal) : undefined;
    return { frame, number: frame && this.numberAt(event, sheet, frame) };
  }

  numberAt(event, sheet, frame) {
    if (sheet === this.lanes) {
      const lane = Math.floor(event.offsetY / this.laneHeight);
      return [...this.laneOf].find(([, other]) => other === lane)?.[0];
    }
    if (!frame.isWhole) return undefined;
    const base = BATCH_HEIGHT - 16;
    const shown = this.history.frames.slice(this.from - this.history.first, this.stop - this.history.first);
    const most = niceCeiling(shown.reduce((a, f) => Math.max(a, f.tokens), 1));
    let left = ((base - event.offsetY) / (base - 14)) * most;
    for (const wantsPrefill of [false, true]) {
      for (let i = 0; i < frame.rows.length; i += 4) {
        if (frame.rows[i + 2] > 0 !== wantsPrefill) continue;
        if (left >= 0 && left < frame.rows[i + 1]) return frame.rows[i];
        left -= frame.rows[i + 1];
      }
    }
    return undefined;
  }

  hover(event, sheet) {
    const { frame, number } = this.place(event, sheet);
    if (!frame) {
      tip.hide();
      return;
    }
    const facts = this.history.facts(number);
    tip.show(event, describeStep(frame) + (facts ? `\n\n${describePart(frame, facts)}` : ""));
  }

  click(event, sheet) {
    const { frame, number } = this.place(event, sheet);
    if (!frame) return;
    this.onSeek(frame.ordinal);
    if (sheet === this.lanes && number !== undefined) this.onFollow(number);
  }
}
