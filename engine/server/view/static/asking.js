// What the page asks of its reader: a key, or to send a first request.

function askKey(problem) {
  const dialog = $("key-dialog");
  $("key-error").textContent = problem;
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.oncancel = (event) => event.preventDefault();
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      const key = $("key").value.trim();
      $("key").value = "";
      dialog.close();
      resolve(key);
    };
  });
}

function curlOf(hello) {
  const key = hello.needs_key ? " \\\n  -H \"Authorization: Bearer $API_KEY\"" : "";
  const place = location.pathname.replace(/\/view\/?$/, "");
  const body = JSON.stringify({ model: hello.model, prompt: "Once upon a time", max_tokens: 200, stream: true });
  return `curl -N ${location.origin}${place}/v1/completions${key} \\\n  -H "Content-Type: application/json" \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
}

async function copyText(text, button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("curl"));
    button.textContent = "Selected: copy it with your keys";
  }
  setTimeout(() => { button.textContent = said; }, 2000);
}
