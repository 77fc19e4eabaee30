// Puts the page together: what comes in goes to the history, what is looked at is drawn.

const LIVE_STEPS = 2400;
const MOST_WAITING_TICKS = 6000; // of a page that is paused
const TABLE_EVERY = 250; // milliseconds
const DRAW_EVERY = 45;
const PLAY_EVERY = 90; // a step of a recorded run

class Page {
  constructor() {
    this.palette = new Palette();
    this.history = new History(LIVE_STEPS);
    this.samples = new Samples();
    this.view = { colourBy: "kind", followed: null };
    this.cursor = null; // ordinal of the step looked at; null: the newest
    this.isPaused = false;
    this.waitingTicks = [];
    this.clock = { t: 0, at: performance.now() };
    this.charts = new Charts(this.palette, this.samples, (t) => this.seekTime(t));
    const seek = (ordinal) => this.seek(ordinal);
    const follow = (number) => this.follow(number);
    this.batch = new BatchView(this.palette, this.history, seek, follow);
    this.blocks = new BlockView(this.palette, this.history, follow);
    this.requests = new RequestView(this.palette, this.history, follow, seek);
    this.isDirty = true;
    this.drawnAt = this.tableAt = this.playedAt = 0;
    this.isPlaying = false;
    this.controls();
  }

  start() {
    const handlers = {
      onHello: (hello) => this.onHello(hello),
      onTick: (tick) => this.onTick(tick),
      onStatus: (kind, text) => this.status(kind, text),
      askKey: (problem) => askKey(problem),
      onEnd: () => this.onEnd(),
    };
    const recorded = $("recorded");
    this.isRecorded = Boolean(recorded);
    this.source = recorded ? new RecordedSource(handlers, recorded) : new LiveSource(handlers);
    this.source.start().catch((error) => this.status("lost", `this page has failed: ${error.message}`));
    requestAnimationFrame((now) => this.frame(now));
  }

  onHello(hello) {
    const isNew = hello.instance !== this.hello?.instance;
    this.hello = hello;
    if (isNew) {
      this.history.clear();
      this.samples.clear();
      this.waitingTicks = [];
      this.cursor = null;
      this.view.followed = null;
      if (!this.isRecorded) this.pause(false);
    }
    if (this.isRecorded) this.history.limit = Infinity;
    this.history.blockSize = hello.block_size;
    this.view.noBlocks = hello.no_blocks;
    this.history.hasCountsOnly = Boolean(hello.no_blocks);
    $("title").textContent = hello.title;
    $("subtitle").textContent = hello.subtitle;
    document.title = `${hello.title}: ${hello.model}`;
    $("notes").textContent = hello.notes ?? "";
    $("curl").textContent = curlOf(hello);
    this.status("live", "live");
    this.isDirty = true;
  }

  // While it is paused the page stands still, and takes in later what has come meanwhile.
  onTick(tick) {
    if (this.isPaused) {
      if (this.waitingTicks.length < MOST_WAITING_TICKS) this.waitingTicks.push(tick);
      else this.hasMissed = true;
      return;
    }
    this.take(tick);
  }

  take(tick) {
    for (const [stats, detail] of tick.steps) this.history.push(stats, detail);
    for (const record of tick.ended) this.history.note(record);
    this.samples.add(tick, this.hello.num_kv_blocks, this.isRecorded);
    this.clock = { t: tick.t, at: performance.now() };
    this.isDirty ||= tick.steps.length > 0;
  }

  onEnd() {
    const { frames, first } = this.history;
    this.cursor = frames.length ? first : null;
    this.isPaused = true;
    this.isDirty = true;
    this.play(false);
  }

  get shown() {
    return Math.max(this.cursor ?? this.history.end - 1, this.history.first);
  }

  seek(ordinal) {
    const { first, end } = this.history;
    if (end === first) return;
    if (!this.isRecorded) this.pause(true);
    this.cursor = Math.max(first, Math.min(ordinal, end - 1));
    this.isDirty = true;
    this.tableAt = 0;
  }

  seekTime(t) {
    const { frames, first } = this.history;
    let index = frames.findIndex((frame) => frame.start + frame.duration >= t);
    if (index < 0) index = frames.length - 1;
    this.seek(first + index);
  }

  follow(number) {
    this.view.followed = this.view.followed === number ? null : number;
    this.isDirty = true;
    this.tableAt = 0;
  }

  // Of a recorded run: play its steps one after the other, or stop.
  play(isPlaying) {
    if (isPlaying && this.shown >= this.history.end - 1) this.seek(this.history.first);
    this.isPlaying = isPlaying;
    this.tellPaused();
  }

  tellPaused() {
    const goesOn = this.isRecorded ? this.isPlaying : !this.isPaused;
    const text = this.isRecorded ? "Play" : "Go on";
    $("pause").textContent = goesOn ? "Pause" : text;
    $("pause").setAttribute("aria-pressed", String(!this.isRecorded && !goesOn));
  }

  pause(isPaused) {
    if (this.isRecorded) {
      this.play(!isPaused);
      return;
    }
    if (isPaused === this.isPaused) return;
    this.isPaused = isPaused;
    this.tellPaused();
    if (isPaused) this.cursor ??= this.history.end - 1;
    else this.resume();
    this.status(isPaused ? "paused" : "live", isPaused ? "paused" : "live");
    this.isDirty = true;
  }

  resume() {
    const ticks = this.waitingTicks;
    this.waitingTicks = [];
    for (const tick of ticks) this.take(tick);
    this.cursor = null;
    // What was too much to keep is not known: a new connection tells everything anew.
    if (this.hasMissed) this.source.again();
    this.hasMissed = false;
  }

  status(kind, text) {
    if (this.isPaused && kind === "live") [kind, text] = ["paused", "paused"];
    $("status").textContent = text;
    $("status-dot").className = `dot ${kind}`;
  }

  controls() {
    $("pause").addEventListener("click", () => this.toggle());
    $("back").addEventListener("click", () => this.seek(this.shown - 1));
    $("forward").addEventListener("click", () => this.seek(this.shown + 1));
    $("slider").addEventListener("input", (event) => this.seek(Number(event.target.value)));
    $("unfollow").addEventListener("click", () => this.follow(this.view.followed));
    $("copy").addEventListener("click", () => copyText($("curl").textContent, $("copy")));
    for (const radio of document.querySelectorAll("input[name=colour]")) {
      radio.addEventListener("change", () => this.colourBy(radio.value));
    }
    addEventListener("resize", () => tip.hide());
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  toggle() {
    this.pause(this.isRecorded ? this.isPlaying : !this.isPaused);
  }

  colourBy(choice) {
    this.view.colourBy = choice;
    this.batch.tellColours(choice);
    this.blocks.tellColours(choice);
    this.isDirty = true;
    this.tableAt = 0;
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("key-dialog").open) return;
    const isButton = event.target.closest?.("button, summary, a");
    const isSlider = event.target === $("slider");
    const acts = {
      " ": () => !isButton && this.toggle(),
      ArrowLeft: () => !isSlider && this.seek(this.shown - (event.shiftKey ? 10 : 1)),
      ArrowRight: () => !isSlider && this.seek(this.shown + (event.shiftKey ? 10 : 1)),
      Home: () => !isSlider && this.seek(this.history.first),
      End: () => (this.isRecorded ? this.seek(this.history.end - 1) : this.pause(false)),
      Escape: () => this.view.followed !== null && this.follow(this.view.followed),
    };
    if (event.target.matches?.("input[type=radio]") && event.key.startsWith("Arrow")) return;
    if (acts[event.key] && acts[event.key]() !== false) event.preventDefault();
  }

  frame(now) {
    const isMoving = !this.isPaused && !this.isRecorded && this.hello;
    if (this.isPlaying && now - this.playedAt >= PLAY_EVERY) {
      this.playedAt = now;
      if (this.shown >= this.history.end - 1) this.play(false);
      else this.seek(this.shown + 1);
    }
    const isStale = this.batch.bars.isStale || this.blocks.sheet.isStale || this.blocks.isStale ||
      this.paletteVersion !== this.palette.version;
    if ((this.isDirty || isMoving || isStale) && now - this.drawnAt >= DRAW_EVERY) {
      this.drawnAt = now;
      this.draw(now, this.isDirty || isStale);
    }
    requestAnimationFrame((later) => this.frame(later));
  }

  draw(now, hasNews) {
    this.drawCharts(now);
    if (!hasNews) return;
    this.isDirty = this.blocks.isStale = false;
    this.paletteVersion = this.palette.version;
    const { shown, history, view } = this;
    const isEmpty = !history.frames.length;
    $("empty").hidden = !isEmpty || this.isRecorded || !this.hello;
    if (isEmpty) {
      this.batch.draw(-1, view);
      this.blocks.draw(history.latest, -1, view);
      this.tellPosition();
      return;
    }
    if (this.drawnOrdinal !== shown || this.cursor === null) this.state = history.at(shown);
    this.drawnOrdinal = shown;
    this.batch.draw(shown, view);
    this.blocks.draw(this.state, shown, view);
    this.tellPosition();
    this.drawTables(now, shown);
  }

  // Text that changes twenty times a second cannot be read.
  drawTables(now, shown) {
    if (now - this.tableAt < TABLE_EVERY) {
      clearTimeout(this.tableTimer);
      this.tableTimer = setTimeout(() => { this.isDirty = true; }, TABLE_EVERY);
      return;
    }
    this.tableAt = now;
    this.requests.draw(this.state, shown, this.view);
    this.requests.drawFollowed(this.state, shown, this.view);
    this.requests.drawEvents(shown);
  }

  drawCharts(now) {
    const { samples, history } = this;
    const frame = this.cursor === null ? null : history.frame(this.cursor);
    const cursor = frame ? frame.start + frame.duration : null;
    if (this.isRecorded) {
      this.charts.draw(samples.start ?? 0, samples.end ?? 1, cursor);
      return;
    }
    if (!this.isPaused) this.until = this.clock.t + Math.min((now - this.clock.at) / 1000, 2);
    const until = this.until ?? this.clock.t;
    this.charts.draw(until - LIVE_SECONDS, until, cursor);
  }

  tellPosition() {
    const { history, shown } = this;
    const slider = $("slider");
    slider.min = history.first;
    slider.max = Math.max(history.first, history.end - 1);
    slider.value = Math.max(shown, history.first);
    slider.disabled = !history.frames.length;
    const frame = history.frame(shown);
    const last = history.frame(history.end - 1);
    let when = "";
    if (frame && this.isRecorded) when = `, at ${seconds(frame.start)}`;
    else if (frame && last !== frame) when = `, ${seconds(last.start - frame.start)} before the last`;
    $("position").textContent = frame ? `step ${integer(frame.step)} of ${integer(last.step)}${when}` : "no steps yet";
    slider.setAttribute("aria-valuetext", $("position").textContent);
    $("back").disabled = !frame || shown <= history.first;
    $("forward").disabled = !frame || shown >= history.end - 1;
  }
}

new Page().start();
