// Completion of the word at the cursor: a combobox as WAI-ARIA describes it. `data-complete` names the key that a field is for;
// in the search it is empty, and words carry their own.
const PAUSE = 120;
let fields = 0;

export function complete(box) {
  const input = box.querySelector("input");
  const key = box.dataset.complete;
  const list = document.createElement("ul");
  list.className = "suggestions";
  list.id = `suggestions-${(fields += 1)}`;
  list.role = "listbox";
  list.ariaLabel = "Suggestions";
  list.hidden = true;
  box.append(list);
  input.role = "combobox";
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  input.setAttribute("aria-expanded", "false");

  let timer = 0;
  let chosen = -1;
  let asked = 0;

  // Where the word at the cursor begins and ends: spaces inside of double quotes belong to it.
  const word = () => {
    if (key) return [0, input.value.length];
    const cursor = input.selectionStart ?? input.value.length;
    let [start, quoted] = [0, false];
    for (let at = 0; at < cursor; at += 1) {
      if (input.value[at] === '"') quoted = !quoted;
      if (input.value[at] === " " && !quoted) start = at + 1;
    }
    let end = cursor;
    while (end < input.value.length && (input.value[end] !== " " || quoted)) {
      if (input.value[end] === '"') quoted = !quoted;
      end += 1;
    }
    return [start, end];
  };

  const close = () => {
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };

  const mark = (index) => {
    chosen = index;
    [...list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === index)));
    const item = list.children[index];
    if (item) {
      input.setAttribute("aria-activedescendant", item.id);
      item.scrollIntoView({ block: "nearest" });
    }
  };

  const take = (index) => {
    let text = list.children[index]?.dataset.text;
    if (text === undefined) return;
    const [start, end] = word();
    if (key) text = text.slice(text.indexOf(":") + 1).replace(/^"(.*)"$/, "$1");
    const whole = !key && !text.endsWith(":");
    input.value = input.value.slice(0, start) + text + (whole ? " " : "") + input.value.slice(end).replace(/^ /, "");
    const cursor = start + text.length + (whole ? 1 : 0);
    input.setSelectionRange(cursor, cursor);
    close();
    if (text.endsWith(":")) ask();
  };

  const show = (suggestions) => {
    list.replaceChildren(
      ...suggestions.map((suggestion, index) => {
        const item = document.createElement("li");
        item.role = "option";
        item.id = `${list.id}-${index}`;
        item.dataset.text = suggestion.text;
        item.setAttribute("aria-selected", "false");
        const text = document.createElement("bdi");
        text.textContent = suggestion.shown;
        item.append(text);
        if (suggestion.detail) {
          const detail = document.createElement("span");
          detail.textContent = suggestion.detail;
          item.append(detail);
        }
        item.addEventListener("mousedown", (event) => {
          event.preventDefault();
          take(index);
        });
        return item;
      }),
    );
    chosen = -1;
    list.hidden = suggestions.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
  };

  const ask = () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const [start, end] = word();
      const text = input.value.slice(start, end);
      const number = (asked += 1);
      const response = await fetch(`/complete?word=${encodeURIComponent(key ? `${key}:${text}` : text)}`).catch(() => null);
      // An older answer does not take the place of a newer one.
      if (number !== asked || !response?.ok || document.activeElement !== input) return;
      const suggestions = await response.json().catch(() => []);
      show(suggestions.filter((suggestion) => suggestion.text !== (key ? `${key}:${text}` : text)));
    }, PAUSE);
  };

  input.addEventListener("input", ask);
  input.addEventListener("blur", () => {
    clearTimeout(timer);
    close();
  });
  input.addEventListener("keydown", (event) => {
    if (list.hidden) {
      if (event.key === "ArrowDown") {
        event.preventDefault();
        ask();
      }
      return;
    }
    const last = list.children.length - 1;
    if (event.key === "ArrowDown") mark(chosen >= last ? 0 : chosen + 1);
    else if (event.key === "ArrowUp") mark(chosen <= 0 ? last : chosen - 1);
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) take(chosen);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
}
