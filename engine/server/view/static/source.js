// Where ticks come from: a server's stream, which may break and come back, or a recorded run.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;
const SILENCE = 25000; // the server says something more often than this

// Reads server-sent events; fetch, not EventSource, since the key goes in a header.
class LiveSource {
  constructor(handlers) {
    this.handlers = handlers; // onHello, onTick, onStatus, askKey
    const hash = new URLSearchParams(location.hash.slice(1));
    const query = new URLSearchParams(location.search);
    this.key = hash.get("key") ?? query.get("key");
    // The key is kept out of the history and of what is copied from the address bar.
    if (this.key) history.replaceState(null, "", location.pathname);
  }

  async start() {
    let pause = FIRST_PAUSE;
    for (;;) {
      try {
        const response = await this.connect();
        if (response.status === 401 || response.status === 403) {
          this.key = await this.handlers.askKey(this.key ? "This key is not one of the server's." : "");
          continue;
        }
        if (!response.ok) throw new Error(`the server answers ${response.status}`);
        pause = FIRST_PAUSE;
        await this.read(response);
        throw new Error("the server ended the stream");
      } catch (error) {
        clearTimeout(this.timer);
        this.handlers.onStatus("lost", `no connection, tries again (${error.message ?? error})`);
        await new Promise((resolve) => setTimeout(resolve, pause));
        pause = Math.min(2 * pause, LONGEST_PAUSE);
      }
    }
  }

  again() {
    this.control.abort();
  }

  connect() {
    this.control = new AbortController();
    this.listen();
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    return fetch(`${location.pathname.replace(/\/$/, "")}/events`, { headers, cache: "no-store", signal: this.control.signal });
  }

  // A connection that says nothing for so long is dead, even if nobody has told.
  listen() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.control.abort(), SILENCE);
  }

  async read(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.listen();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) this.take(event);
    }
  }

  take(event) {
    let kind = "message";
    const data = [];
    for (const line of event.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("data: ")) data.push(line.slice(6));
    }
    if (!data.length) return;
    const content = JSON.parse(data.join("\n"));
    if (kind === "hello") this.handlers.onHello(content);
    else if (kind === "tick") this.handlers.onTick(content);
    else if (kind === "core") this.handlers.onStatus(content.alive ? "live" : "lost", content.text);
  }
}

// A recorded run that lies in the page itself, packed.
class RecordedSource {
  constructor(handlers, element) {
    this.handlers = handlers;
    this.element = element;
  }

  async start() {
    this.handlers.onStatus("paused", "unpacking the recorded run");
    const packed = bytesOf(this.element.textContent.trim());
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const { hello, ticks } = JSON.parse(await new Response(stream).text());
    this.handlers.onHello(hello);
    for (const tick of ticks) this.handlers.onTick(tick);
    this.handlers.onStatus("paused", "recorded run");
    this.handlers.onEnd();
  }
}
