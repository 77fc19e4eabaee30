// What is known of the server after a step, and the last steps of it.
// Knows the messages (engine/step_messages.py); draws nothing.

const PREEMPTED = "preempted";
const SNAPSHOT_EVERY = 64;

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// A block table at one moment: the first `length` blocks of a list that only ever grows.
class Table {
  constructor(blocks, length, skipped) {
    this.blocks = blocks;
    this.length = length;
    this.skipped = skipped;
  }

  changed(start, blocks, skipped) {
    const grows = start <= this.length && start > 0;
    const list = grows ? this.blocks : [];
    // A past state that is made again finds its blocks there already.
    if (list.length <= start) for (const block of blocks) list.push(block);
    return new Table(list, start + blocks.length, skipped);
  }
}

class State {
  constructor() {
    this.step = -1;
    this.rows = new Map(); // number -> [tokens, prefill tokens, computed tokens]
    this.tables = new Map(); // number -> one Table a group
    this.running = new Map(); // number -> {cached, preemptions, since}
    this.waiting = [];
    this.blocks = new Uint8Array(0);
  }

  copy() {
    const twin = new State();
    twin.step = this.step;
    twin.rows = new Map(this.rows);
    twin.tables = new Map([...this.tables].map(([n, groups]) => [n, groups.slice()]));
    twin.running = new Map(this.running);
    twin.waiting = this.waiting;
    twin.blocks = this.blocks.slice();
    return twin;
  }

  apply(detail) {
    if (detail.isFirst) Object.assign(this, new State(), { blocks: this.blocks });
    for (const [number] of detail.left) {
      this.running.delete(number);
      this.tables.delete(number);
    }
    for (const [number, cached, preemptions] of detail.admitted) {
      this.running.set(number, { cached, preemptions, since: detail.step });
      this.tables.delete(number);
    }
    for (const [number, group, skipped, start, blocks] of detail.tables) {
      const groups = this.tables.get(number)?.slice() ?? [];
      groups[group] = (groups[group] ?? new Table([], 0, 0)).changed(start, blocks, skipped);
      this.tables.set(number, groups);
    }
    this.applyRows(detail);
    if (detail.waiting) this.waiting = detail.waiting;
    if (detail.map) this.applyMap(detail.map);
    this.step = detail.step;
  }

  applyRows(detail) {
    const numSteps = detail.step - this.step;
    for (const number of detail.gone) this.rows.delete(number);
    for (const [number, row] of this.rows) this.rows.set(number, [1, 0, row[2] + numSteps]);
    for (const [number, tokens, prefill, computed] of detail.rows) {
      this.rows.set(number, [tokens, prefill, computed]);
    }
  }

  applyMap({ states, places }) {
    if (!places) {
      this.blocks = states.slice();
      return;
    }
    for (let i = 0; i < places.length; i++) this.blocks[places[i]] = states[i];
  }

  // Blocks that a request holds, all groups together, in the order of its tables.
  blocksOf(number) {
    const held = [];
    for (const table of this.tables.get(number) ?? []) {
      if (table) for (let i = table.skipped; i < table.length; i++) held.push(table.blocks[i]);
    }
    return held;
  }

  // [number, place in its table] of each request that holds a block.
  ownersOf(block) {
    const owners = [];
    for (const [number, groups] of this.tables) {
      for (const table of groups) {
        if (!table) continue;
        const place = table.blocks.indexOf(block, table.skipped);
        if (place >= 0 && place < table.length) owners.push([number, place]);
      }
    }
    return owners;
  }

  // Users of each block and the last of them, both by block id.
  ownership(numBlocks) {
    const count = new Uint16Array(numBlocks + 1);
    const owner = new Int32Array(numBlocks + 1).fill(-1);
    for (const [number, groups] of this.tables) {
      for (const table of groups) {
        for (let i = table?.skipped ?? 0; i < (table?.length ?? 0); i++) {
          count[table.blocks[i]]++;
          owner[table.blocks[i]] = number;
        }
      }
    }
    return { count, owner };
  }
}

// The last steps, each of which can be looked at again.
class History {
  constructor(limit) {
    this.limit = limit;
    this.clear();
  }

  clear() {
    this.frames = [];
    this.first = 0; // ordinal of frames[0]
    this.requests = new Map(); // number -> facts
    this.byId = new Map();
    this.events = []; // preemptions, newest last
    this.latest = new State();
    this.snapshots = new Map();
    this.numberOfKey = [];
    this.nextNumber = 0;
  }

  get end() {
    return this.first + this.frames.length;
  }

  frame(ordinal) {
    return this.frames[ordinal - this.first];
  }

  facts(number) {
    return this.requests.get(number);
  }

  push(stats, wire) {
    const [step, start, duration, running, waiting, used, tokens, prefill, decode, preempted,
      queries, hits] = stats;
    const frame = { ordinal: this.end, step, start, duration, running, waiting, used, tokens,
      prefill, decode, preempted, queries, hits, detail: null, rows: null, waits: null, preemptions: [] };
    if (wire) this.see(frame, this.translate(wire));
    if (preempted && this.hasCountsOnly) this.events.push({ ordinal: frame.ordinal, step, count: preempted });
    this.frames.push(frame);
    if (frame.ordinal % SNAPSHOT_EVERY === 0) this.snapshots.set(frame.ordinal, this.latest.copy());
    if (this.frames.length > this.limit + SNAPSHOT_EVERY) this.forget();
    return frame;
  }

  see(frame, detail) {
    for (const [number, reason] of detail.left) this.leaves(frame, number, reason);
    this.latest.apply(detail);
    const rows = new Int32Array(this.latest.rows.size * 4);
    let i = 0;
    for (const [number, [tokens, prefill, computed]] of this.latest.rows) {
      rows.set([number, tokens, prefill, computed], i);
      i += 4;
      const facts = this.requests.get(number);
      facts.computed = Math.max(facts.computed, computed);
      facts.seen = frame.ordinal;
    }
    for (const number of this.latest.waiting) this.requests.get(number).seen = frame.ordinal;
    for (const [number, cached, preemptions] of detail.admitted) {
      const facts = this.requests.get(number);
      facts.seen = frame.ordinal;
      facts.story.push([frame.ordinal, "admitted", cached, preemptions]);
    }
    frame.detail = detail;
    frame.rows = rows;
    // Tables of a run do not tell how a step's tokens went to several prompts.
    frame.isWhole = rows.reduce((sum, value, at) => sum + (at % 4 === 1 ? value : 0), 0) >= frame.tokens;
    frame.waits = this.latest.waiting;
  }

  leaves(frame, number, reason) {
    const facts = this.requests.get(number);
    if (!facts) return;
    facts.story.push([frame.ordinal, reason]);
    facts.seen = frame.ordinal;
    if (reason !== PREEMPTED) {
      facts.ended = reason;
      facts.endedAt = frame.ordinal;
      return;
    }
    const blocks = this.latest.blocksOf(number);
    frame.preemptions.push({ number, blocks });
    this.events.push({ ordinal: frame.ordinal, step: frame.step, number, numBlocks: blocks.length });
    if (this.events.length > 500) this.events.shift();
  }

  // Keys of the wire, which begin anew when a viewer does, become numbers of this page.
  translate([step, isFirst, requests, admitted, rows, gone, tables, left, waiting, map]) {
    if (isFirst) this.numberOfKey = [];
    for (const [key, id, prompt, maxTokens, priority] of requests) {
      this.numberOfKey[key] = this.numberOf(id, { prompt, maxTokens, priority });
    }
    const number = (key) => {
      const known = this.numberOfKey[key];
      if (!this.requests.has(known)) this.restore(known);
      return known;
    };
    const named = (entry) => [number(entry[0]), ...entry.slice(1)];
    return {
      step, isFirst, gone: gone.map(number), admitted: admitted.map(named), rows: rows.map(named),
      tables: tables.map(named), left: left.map(named), waiting: waiting && waiting.map(number),
      map: map && { states: bytesOf(map[0]), places: map[1] && new Uint32Array(bytesOf(map[1]).buffer) },
    };
  }

  numberOf(id, facts) {
    let number = this.byId.get(id);
    if (number === undefined || this.requests.get(number).ended) {
      number = this.nextNumber++;
      this.byId.set(id, number);
      this.requests.set(number, this.unseen(number, id, facts));
    }
    return number;
  }

  // A request that was forgotten, as it was out of sight for so long, is seen again.
  restore(number) {
    this.requests.set(number, this.unseen(number, "(forgotten)", { prompt: 0, maxTokens: 0, priority: 0 }));
  }

  unseen(number, id, facts) {
    return { number, id, ...facts, computed: 0, ended: null, endedAt: -1, seen: this.end, story: [],
      record: null };
  }

  // How far a request had come after a step: tokens found in the cache, preemptions, whether the
  // last that happened to it was one, and whether it had ended.
  asOf(facts, ordinal) {
    const told = { cached: 0, preemptions: 0, isThrownOut: false, hasEnded: false };
    for (const [at, what, cached, preemptions] of facts.story) {
      if (at > ordinal) break;
      if (what === "admitted") Object.assign(told, { cached, preemptions });
      told.isThrownOut = what === PREEMPTED;
      if (told.isThrownOut) told.preemptions++;
    }
    told.hasEnded = Boolean(facts.ended) && facts.endedAt <= ordinal;
    return told;
  }

  // A request has ended, with times that only the front knows.
  note(record) {
    for (const id of [record.id, `0_${record.id}`]) {
      const facts = this.requests.get(this.byId.get(id));
      if (facts) facts.record = record;
    }
  }

  // The state after a frame of the past.
  at(ordinal) {
    if (ordinal >= this.end - 1) return this.latest;
    const from = ordinal - (ordinal % SNAPSHOT_EVERY);
    const snapshot = this.snapshots.get(from);
    const state = snapshot ? snapshot.copy() : new State();
    for (let i = snapshot ? from + 1 : this.first; i <= ordinal; i++) {
      const { detail } = this.frame(i);
      if (detail) state.apply(detail);
    }
    return state;
  }

  forget() {
    this.frames.splice(0, SNAPSHOT_EVERY);
    this.first += SNAPSHOT_EVERY;
    for (const ordinal of this.snapshots.keys()) {
      if (ordinal < this.first) this.snapshots.delete(ordinal);
    }
    this.events = this.events.filter((event) => event.ordinal >= this.first);
    for (const facts of this.requests.values()) {
      if (facts.seen < this.first && !this.latest.running.has(facts.number)) {
        this.requests.delete(facts.number);
        if (this.byId.get(facts.id) === facts.number) this.byId.delete(facts.id);
      }
    }
  }
}
