// Progress of an export: the file is read here and then saved. A large one is left to the browser, which writes it to the disk as it
// comes and shows its own progress.
const LARGEST = 250_000;

export function exporting(box) {
  if (!box) return;
  const bar = box.querySelector("progress");
  const text = box.querySelector("[data-progress-text]");
  const state = document.querySelector("[data-export-state]");
  const expected = Number(document.querySelector("[data-entries]").dataset.entries);
  const number = new Intl.NumberFormat("en");

  const run = async (link) => {
    const abort = new AbortController();
    box.querySelector("[data-cancel]").onclick = () => abort.abort();
    box.hidden = false;
    state.textContent = "";
    bar.value = 0;
    try {
      const response = await fetch(link.href, { signal: abort.signal });
      if (!response.ok) {
        const error = await response.json();
        throw new Error(error.detail ?? error.message);
      }
      const reader = response.body.getReader();
      const parts = [];
      let [lines, last] = [0, new Uint8Array()];
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        for (const byte of value) lines += byte === 10 ? 1 : 0;
        last = parts.length > 1 && value.length < 4096 ? new Uint8Array([...last.slice(-4096), ...value]) : value;
        bar.value = lines;
        text.textContent = number.format(lines);
      }
      // The end of the file says whether it is all, in every format.
      const end = new TextDecoder().decode(last.slice(-4096)).trimEnd().split("\n").at(-1);
      const json = end.startsWith("{");
      // Of CSV the columns "rows" and "complete", one beside the other; further ones may follow.
      const told = json ? end.match(/"rows":(\d+)/) : [...end.matchAll(/,(\d+),(true|false),/g)].at(-1);
      const rows = Number(told?.[1]);
      const isComplete = json ? end.includes('"complete":true') : told?.[2] === "true";
      const file = document.createElement("a");
      file.href = URL.createObjectURL(new Blob(parts));
      file.download = link.download;
      file.click();
      setTimeout(() => URL.revokeObjectURL(file.href), 10_000);
      state.textContent = isComplete
        ? `Complete: ${number.format(rows)} ${rows === 1 ? "entry" : "entries"}.`
        : "Not complete: the last line of the file says why.";
    } catch (error) {
      state.textContent = error.name === "AbortError" ? "Cancelled." : `Failed: ${error.message}`;
    }
    box.hidden = true;
  };

  document.querySelectorAll("[data-export]").forEach((link) => {
    link.addEventListener("click", (event) => {
      if (expected > LARGEST) return;
      event.preventDefault();
      run(link);
    });
  });
}
