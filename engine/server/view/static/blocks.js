// The map of the KV blocks: one cell a block, in the order of their ids.

const MOST_HEIGHT = 380;
const FLASH_STEPS = 15;
const LARGEST_CELL = 18;

class BlockView {
  constructor(palette, history, onFollow) {
    Object.assign(this, { palette, history, onFollow });
    this.sheet = new Sheet($("blocks"), 40);
    this.hovered = 0;
    const { canvas } = this.sheet;
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => { this.hovered = 0; tip.hide(); });
    canvas.addEventListener("click", (event) => this.click(event));
    this.tellColours("kind");
  }

  tellColours(colourBy) {
    const used = colourBy === "kind" ? ["var(--used)", "used by one request"] : ["var(--rainbow)", "used by one, in its colour"];
    legend($("blocks-legend"), [
      ["var(--free)", "free"], ["var(--cached)", "free, but cached"], used,
      ["var(--shared-1)", "shared by 2"], ["var(--shared-2)", "by many"], ["var(--preempted)", "taken from a preempted one"],
    ]);
  }

  // The largest cells with which all blocks fit.
  arrange(numBlocks) {
    const { width } = this.sheet;
    let cell = LARGEST_CELL;
    while (cell > 1 && Math.ceil(numBlocks / Math.floor(width / cell)) * cell > MOST_HEIGHT) cell--;
    this.columns = Math.max(1, Math.floor(width / cell));
    // Cells that are large enough to differ by a pixel unseen fill the whole width.
    this.cell = cell >= 5 ? width / this.columns : cell;
    this.numBlocks = numBlocks;
    this.sheet.setHeight(Math.max(24, Math.ceil(Math.ceil(numBlocks / this.columns) * this.cell)));
  }

  draw(state, cursor, view) {
    const { blocks } = state;
    this.state = state;
    if (!blocks.length) {
      this.drawNothing(view);
      return;
    }
    this.arrange(blocks.length);
    const context = this.sheet.begin();
    const pixels = this.paint(this.coloursOf(state, cursor, view));
    context.putImageData(pixels, 0, 0);
    this.tell(state, this.history.frame(cursor));
  }

  drawNothing(view) {
    this.sheet.setHeight(24);
    this.sheet.begin();
    $("blocks-legend").hidden = this.sheet.canvas.hidden = Boolean(view.noBlocks);
    $("blocks-text").textContent = view.noBlocks ?? "No step has been told yet.";
    $("blocks-count").textContent = "";
  }

  // A colour a block, as 32 bit pixels.
  coloursOf(state, cursor, view) {
    const { blocks } = state;
    const table = this.colourTable();
    const colours = new Uint32Array(blocks.length);
    for (let i = 0; i < blocks.length; i++) colours[i] = table[blocks[i]];
    if (view.colourBy === "request") this.colourOwners(colours, state);
    const held = view.followed === null ? [] : state.blocksOf(view.followed);
    if (held.length) this.dimOthers(colours, held);
    for (let ordinal = Math.max(cursor - FLASH_STEPS, this.history.first); ordinal <= cursor; ordinal++) {
      const frame = this.history.frame(ordinal);
      const strength = 1 - (cursor - ordinal) / (FLASH_STEPS + 1);
      for (const { blocks: lost } of frame?.preemptions ?? []) {
        for (const block of lost) colours[block - 1] = mix(colours[block - 1], this.red, strength);
      }
    }
    return colours;
  }

  colourTable() {
    if (this.tableVersion === this.palette.version) return this.table;
    const { palette } = this;
    this.table = new Uint32Array(256);
    this.table[0] = pixelOf(palette.free);
    this.table[1] = pixelOf(palette.cached);
    this.table[2] = pixelOf(palette.used);
    for (let users = 2; users < 255; users++) this.table[1 + users] = pixelOf(palette.sharedBy(users));
    this.red = pixelOf(palette.preempted);
    this.back = pixelOf(palette.card);
    this.ink = pixelOf(palette.ink);
    this.tableVersion = palette.version;
    this.ownColours = new Map();
    return this.table;
  }

  colourOwners(colours, state) {
    const { count, owner } = state.ownership(colours.length);
    for (let i = 0; i < colours.length; i++) {
      if (count[i + 1] !== 1) continue;
      const number = owner[i + 1];
      if (!this.ownColours.has(number)) this.ownColours.set(number, pixelOf(this.palette.request(number)));
      colours[i] = this.ownColours.get(number);
    }
  }

  dimOthers(colours, held) {
    const own = new Set(held);
    for (let i = 0; i < colours.length; i++) {
      if (!own.has(i + 1)) colours[i] = mix(colours[i], this.back, 0.72);
    }
  }

  paint(colours) {
    const { cell, columns, sheet } = this;
    const { scale } = sheet;
    const pixels = sheet.context.createImageData(sheet.canvas.width, sheet.canvas.height);
    const out = new Uint32Array(pixels.data.buffer);
    const { width } = pixels;
    const gap = cell >= 5 ? 1 : 0;
    for (let i = 0; i < colours.length; i++) {
      const x = (i % columns) * cell;
      const y = Math.floor(i / columns) * cell;
      const left = Math.round(x * scale);
      const right = Math.min(Math.round((x + cell - gap) * scale), width);
      const bottom = Math.min(Math.round((y + cell - gap) * scale), pixels.height);
      const colour = i + 1 === this.hovered ? this.ink : colours[i];
      for (let row = Math.round(y * scale); row < bottom; row++) out.fill(colour, row * width + left, row * width + right);
    }
    return pixels;
  }

  tell(state, frame) {
    const counts = { free: 0, cached: 0, used: 0, shared: 0, saved: 0 };
    for (const value of state.blocks) {
      if (value === 0) counts.free++;
      else if (value === 1) counts.cached++;
      else {
        counts.used++;
        if (value > 2) counts.shared++;
        counts.saved += value - 2;
      }
    }
    const total = state.blocks.length;
    $("blocks-count").textContent = `${plural(total, "block")} of ${plural(this.history.blockSize ?? 0, "token")}`;
    const saved = counts.shared
      ? ` ${integer(counts.shared)} shared, which saves ${plural(counts.saved, "block")}.` : "";
    const found = frame?.queries ? ` Of all prompt tokens so far, ${percent(frame.hits, frame.queries)} were found in the cache.` : "";
    $("blocks-text").textContent = `${integer(counts.used)} used (${percent(counts.used, total)}), ` +
      `${integer(counts.cached)} free but cached, ${integer(counts.free)} free.${saved}${found}`;
  }

  blockAt(event) {
    if (!this.state?.blocks.length) return 0;
    const column = Math.floor(event.offsetX / this.cell);
    const block = Math.floor(event.offsetY / this.cell) * this.columns + column + 1;
    return column < this.columns && block <= this.numBlocks ? block : 0;
  }

  hover(event) {
    const block = this.blockAt(event);
    this.isStale = block !== this.hovered;
    this.hovered = block;
    if (block) tip.show(event, this.describe(block));
    else tip.hide();
  }

  describe(block) {
    const value = this.state.blocks[block - 1];
    const size = this.history.blockSize;
    const owners = this.state.ownersOf(block);
    const what = value === 0 ? "free" : value === 1 ? "free, but its content is cached"
      : value === 2 ? "used by one request" : `shared by ${plural(value - 1, "request")}`;
    const lines = owners.slice(0, 8).map(([number, place]) =>
      `${this.history.facts(number)?.id ?? "?"}: tokens ${integer(place * size)} to ${integer((place + 1) * size - 1)}`);
    if (owners.length > 8) lines.push(`and ${owners.length - 8} more`);
    return [`Block ${integer(block)}: ${what}`, ...lines].join("\n");
  }

  click(event) {
    const block = this.blockAt(event);
    const owners = block ? this.state.ownersOf(block) : [];
    if (owners.length) this.onFollow(owners[0][0]);
  }
}

function pixelOf(colour) {
  const [r, g, b] = rgbOf(colour);
  return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
}

function mix(pixel, other, share) {
  let mixed = 255 << 24;
  for (const shift of [0, 8, 16]) {
    const a = (pixel >>> shift) & 255;
    const b = (other >>> shift) & 255;
    mixed |= Math.round(a + (b - a) * share) << shift;
  }
  return mixed >>> 0;
}
