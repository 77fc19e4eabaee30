// The table of requests, the one that is followed, and the list of preemptions.

const MOST_ROWS = 80;
const MOST_ENDED = 20;

class RequestView {
  constructor(palette, history, onFollow, onSeek) {
    Object.assign(this, { palette, history, onFollow, onSeek });
    this.life = new Sheet($("life"), 110);
    this.life.canvas.addEventListener("click", (event) => {
      const ordinal = this.lifeRange && this.lifeRange[0] +
        Math.round((event.offsetX / this.life.width) * (this.lifeRange[1] - this.lifeRange[0]));
      if (ordinal !== undefined && this.history.frame(ordinal)) this.onSeek(ordinal);
    });
    this.rowOf = new Map();
  }

  // Requests as they are after the step that is looked at: running, waiting, ended.
  listed(state, cursor) {
    const running = [...state.running.keys()];
    const shown = new Set(running);
    const waiting = state.waiting.filter((number) => !shown.has(number));
    const ended = [...this.history.requests.values()]
      .filter((facts) => facts.ended && facts.endedAt <= cursor && facts.endedAt >= this.history.first)
      .sort((a, b) => b.endedAt - a.endedAt || b.number - a.number)
      .slice(0, MOST_ENDED)
      .map((facts) => facts.number);
    return { running, waiting, ended };
  }

  draw(state, cursor, view) {
    const { running, waiting, ended } = this.listed(state, cursor);
    const numbers = [...running, ...waiting, ...ended];
    const kept = numbers.slice(0, MOST_ROWS);
    const computed = new Map();
    for (const [number, row] of state.rows) computed.set(number, row);
    const rows = kept.map((number) => this.row(number, state, computed.get(number), cursor, view));
    for (const [number, row] of this.rowOf) if (!kept.includes(number)) { row.element.remove(); this.rowOf.delete(number); }
    const body = $("requests");
    rows.forEach((element, i) => { if (body.children[i] !== element) body.insertBefore(element, body.children[i] ?? null); });
    const frame = this.history.frame(cursor);
    const hidden = numbers.length - kept.length;
    $("requests-count").textContent = frame
      ? `${integer(frame.running)} running, ${integer(frame.waiting)} waiting${hidden > 0 ? `, ${integer(hidden)} not listed` : ""}` : "";
  }

  row(number, state, computed, cursor, view) {
    const facts = this.history.facts(number);
    let row = this.rowOf.get(number);
    if (!row) {
      row = this.newRow(number, facts);
      this.rowOf.set(number, row);
    }
    const values = this.valuesOf(facts, state, computed, cursor);
    row.element.classList.toggle("followed", number === view.followed);
    row.button.setAttribute("aria-pressed", String(number === view.followed));
    row.swatch.style.background = view.colourBy === "request" ? this.palette.request(number) : values.colour;
    values.cells.forEach((text, i) => { if (row.cells[i].textContent !== text) row.cells[i].textContent = text; });
    const { total, cached, prompt, answer } = values.progress;
    [cached, prompt, answer].forEach((part, i) => { row.parts[i].style.width = `${(100 * part) / total}%`; });
    return row.element;
  }

  newRow(number, facts) {
    const swatch = make("i", { className: "swatch" });
    const button = make("button", { type: "button", textContent: facts.id, title: `Follow ${facts.id}` });
    button.addEventListener("click", () => this.onFollow(number));
    const cells = ["", "number", "number", "number", "number", "number"].map((className) => make("td", { className }));
    const parts = ["cached", "prompt", "answer"].map((className) => make("i", { className }));
    const bar = make("td", {}, make("span", { className: "bar" }, ...parts));
    const head = make("th", { scope: "row" }, swatch, button);
    return { element: make("tr", {}, head, ...cells, bar), swatch, button, cells, parts };
  }

  valuesOf(facts, state, computed, cursor) {
    const { prompt, maxTokens } = facts;
    const told = this.history.asOf(facts, cursor);
    const runs = state.running.has(facts.number);
    const isDone = told.hasEnded && !runs;
    const numComputed = computed ? computed[2] : isDone ? facts.computed : 0;
    const counted = Math.max(0, numComputed - prompt + (numComputed >= prompt ? 1 : 0));
    // The last tokens may have come in steps that were not told.
    const known = isDone && facts.record?.id === facts.id ? facts.record.tokens : counted;
    const answer = Math.min(known, maxTokens);
    const cached = told.cached;
    const numBlocks = state.blocksOf(facts.number).length;
    const [text, colour] = this.phase(facts, told, runs, isDone, computed);
    const cells = [text, integer(prompt), integer(cached), `${integer(answer)} / ${integer(maxTokens)}`,
      numBlocks ? integer(numBlocks) : "–", told.preemptions ? integer(told.preemptions) : "–"];
    const inPrompt = Math.min(numComputed, prompt);
    const progress = { total: Math.max(prompt + maxTokens, 1), cached: Math.min(cached, inPrompt),
      prompt: Math.max(0, inPrompt - cached), answer };
    return { cells, colour, progress, text, answer, told };
  }

  phase(facts, told, runs, isDone, computed) {
    const { palette } = this;
    if (isDone) return [endText(facts.ended), palette.line];
    if (!runs) return told.isThrownOut ? ["preempted, waits", palette.preempted] : ["waiting", palette.waiting];
    if (!computed) return ["running, not in this step", palette.waiting];
    return computed[1] > 0 ? ["prefill", palette.prefill] : ["decode", palette.decode];
  }

  drawFollowed(state, cursor, view) {
    const facts = view.followed === null ? undefined : this.history.facts(view.followed);
    $("followed").hidden = !facts;
    if (!facts) return;
    $("followed-title").textContent = facts.id;
    const { text, answer, told } = this.valuesOf(facts, state, state.rows.get(facts.number), cursor);
    const held = state.blocksOf(facts.number);
    const shared = held.filter((block) => state.blocks[block - 1] > 2).length;
    const { record } = facts;
    const entries = [
      ["State", text], ["Prompt", plural(facts.prompt, "token")],
      ["Found in cache", plural(told.cached, "token")],
      ["Answer", `${integer(answer)} of ${integer(facts.maxTokens)}`],
      ["Blocks", held.length ? `${integer(held.length)}, ${integer(shared)} shared` : "none"],
      ["Preempted", plural(told.preemptions, "time")],
    ];
    if (facts.priority) entries.push(["Priority", String(facts.priority)]);
    if (record && told.hasEnded) {
      entries.push(["Time to first token", seconds(record.ttft)], ["In all", seconds(record.e2e)]);
    }
    this.tellFacts(entries);
    this.drawLife(facts, cursor);
  }

  tellFacts(entries) {
    const text = entries.map((entry) => entry.join()).join();
    if (this.factsText === text) return;
    this.factsText = text;
    $("followed-facts").replaceChildren(...entries.map(([name, value]) =>
      make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));
  }

  drawLife(facts, cursor) {
    const { history, palette } = this;
    const context = this.life.begin();
    const { width, height } = this.life;
    const points = [];
    for (const frame of history.frames) {
      const phase = phaseOf(frame, facts.number);
      if (phase) points.push([frame.ordinal, ...phase]);
    }
    if (!points.length) return;
    const from = points[0][0];
    const until = Math.max(points.at(-1)[0], from + 20);
    this.lifeRange = [from, until];
    const most = niceCeiling(Math.max(1, ...points.map(([, , computed]) => computed)));
    const x = (ordinal) => ((ordinal - from) / (until - from + 1)) * width;
    const step = Math.max(1, width / (until - from + 1));
    context.fillStyle = palette.grid;
    context.fillRect(0, height - 14, width, 1);
    for (const [ordinal, phase, computed] of points) {
      const tall = computed ? Math.max(2, (computed / most) * (height - 30)) : 3;
      context.fillStyle = palette[phase];
      context.fillRect(x(ordinal), height - 14 - (phase === "preempted" ? height - 30 : tall), step, phase === "preempted" ? height - 30 : tall);
    }
    context.fillStyle = palette.link;
    if (cursor >= from && cursor <= until) context.fillRect(x(cursor), 8, 1.5, height - 22);
    context.fillStyle = palette.quiet;
    context.textAlign = "left";
    context.fillText(`${integer(most)} tokens`, 0, 9);
    context.fillText(`step ${integer(history.frame(from)?.step ?? 0)}`, 0, height - 2);
    context.textAlign = "right";
    context.fillText(integer(history.frame(Math.min(until, history.end - 1))?.step ?? 0), width, height - 2);
  }

  drawEvents(cursor) {
    const events = this.history.events.filter((event) => event.ordinal <= cursor);
    const key = `${events.length} ${events.at(-1)?.ordinal}`;
    if (key === this.eventsKey) return;
    this.eventsKey = key;
    $("events-count").textContent = events.length ? `${integer(events.length)} in these steps` : "none in these steps";
    $("events").replaceChildren(...events.slice(-40).reverse().map((event) => {
      const facts = this.history.facts(event.number);
      const blocks = event.numBlocks ? `, gave back ${plural(event.numBlocks, "block")}` : "";
      const who = facts?.id ?? plural(event.count ?? 1, "request");
      const button = make("button", { type: "button", textContent: `Step ${integer(event.step)}: ${who}${blocks}` });
      button.addEventListener("click", () => {
        this.onSeek(event.ordinal);
        if (facts) this.onFollow(event.number);
      });
      return make("li", {}, button);
    }));
  }
}

function endText(reason) {
  return { stop: "done (stop)", length: "done (length)", abort: "aborted", ignored: "ignored", error: "error" }[reason] ?? reason;
}
