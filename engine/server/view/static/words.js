// A step, and a request's part in it.

function describeStep(frame) {
  const parts = [];
  const { rows } = frame;
  if (frame.isWhole) {
    let prompts = 0;
    for (let i = 0; i < rows.length; i += 4) prompts += rows[i + 2] > 0;
    const answers = rows.length / 4 - prompts;
    if (prompts) parts.push(`${plural(prompts, "prefill")} of ${plural(frame.prefill, "token")}`);
    if (answers) parts.push(plural(answers, "decode"));
  } else {
    if (frame.prefill) parts.push(`${plural(frame.prefill, "prefill token")}`);
    if (frame.decode) parts.push(`${plural(frame.decode, "decode token")}`);
  }
  const batch = parts.length ? parts.join(" + ") : "nothing to compute";
  const thrown = frame.preempted ? `, ${frame.preempted} preempted` : "";
  return `Step ${integer(frame.step)}: ${batch}; ${seconds(frame.duration)}; ` +
    `${integer(frame.running)} running, ${integer(frame.waiting)} waiting${thrown}.`;
}

function describePart(frame, facts) {
  const { rows } = frame;
  for (let i = 0; i < (rows?.length ?? 0); i += 4) {
    if (rows[i] !== facts.number) continue;
    const kind = rows[i + 2] > 0 ? "prefill" : "decode";
    const tokens = rows[i + 1] ? `${kind} of ${plural(rows[i + 1], "token")}, ${integer(rows[i + 3])} computed` : kind;
    return `${facts.id}\n${tokens}`;
  }
  if (frame.preemptions.some(({ number }) => number === facts.number)) return `${facts.id}\npreempted`;
  return `${facts.id}\n${frame.waits?.includes(facts.number) ? "waiting" : "not in this step"}`;
}

// [waiting, prefill, decode or preempted; tokens computed], or null.
function phaseOf(frame, number) {
  if (frame.preemptions.some((one) => one.number === number)) return ["preempted", 0];
  const { rows } = frame;
  for (let i = 0; i < (rows?.length ?? 0); i += 4) {
    if (rows[i] === number) return [rows[i + 2] > 0 ? "prefill" : "decode", rows[i + 3]];
  }
  return frame.waits?.includes(number) ? ["waiting", 0] : null;
}
