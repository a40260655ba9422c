// The tail: rows arrive above what is there, and what is being read stays where it is.
const MOST_WAITING = 500;

export function live(button) {
  const days = document.querySelector("[data-days]");
  const state = document.querySelector("[data-live-state]");
  let source = null;
  let waiting = [];
  button.hidden = false;

  const say = (text, kind = "") => {
    state.dataset.kind = kind;
    if (state.textContent !== text) state.textContent = text;
  };

  const row = (event) => {
    const { id, date, label, html } = JSON.parse(event.data);
    const template = document.createElement("template");
    template.innerHTML = html;
    return { id, date, label, element: template.content.firstElementChild };
  };

  const section = (date, label) => {
    const known = days.querySelector(`[data-date="${CSS.escape(date)}"]`);
    if (known) return known;
    const made = document.createElement("section");
    made.className = "day";
    made.dataset.date = date;
    made.append(document.createElement("h2"), document.createElement("ol"));
    made.querySelector("h2").textContent = label;
    made.querySelector("ol").className = "rows";
    const later = [...days.querySelectorAll("[data-date]")].find((other) => other.dataset.date < date);
    days.insertBefore(made, later ?? null);
    return made;
  };

  const put = ({ id, date, label, element }) => {
    element.classList.add("new");
    const known = days.querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (known) {
      const focused = known.contains(document.activeElement);
      known.replaceWith(element);
      if (focused) element.querySelector("a")?.focus({ preventScroll: true });
      return;
    }
    const time = (item) => item.querySelector("time").dateTime;
    const rows = section(date, label).querySelector("ol");
    const older = [...rows.children].find((other) => time(other) < time(element));
    rows.insertBefore(element, older ?? null);
  };

  const counted = () => `${waiting.length} new ${waiting.length === 1 ? "entry" : "entries"}`;

  const offer = () => {
    say("");
    const shown = document.createElement("button");
    shown.textContent = `Show ${counted()}`;
    shown.addEventListener("click", () => {
      waiting.splice(0).forEach(put);
      say("Live.");
      scrollTo({ top: 0 });
    });
    state.replaceChildren(shown);
  };

  const arrived = (event) => {
    const made = row(event);
    if (!made.element) return;
    const isKnown = days.querySelector(`[data-id="${CSS.escape(made.id)}"]`);
    const isReading = scrollY > 200 || days.contains(document.activeElement);
    if (isKnown || !isReading) {
      put(made);
      return;
    }
    waiting = waiting.filter((other) => other.id !== made.id);
    waiting.push(made);
    // Nobody reads so many; the log has them.
    if (waiting.length > MOST_WAITING) waiting.shift();
    offer();
  };

  const start = () => {
    button.setAttribute("aria-pressed", "true");
    say("Connecting…");
    source = new EventSource(button.dataset.live);
    source.addEventListener("ready", () => say("Live."));
    for (const kind of ["connect", "disconnect", "inferred", "web"]) source.addEventListener(kind, arrived);
    source.addEventListener("position", () => waiting.length === 0 && say("Live."));
    source.addEventListener("lag", (event) => say(`Behind by ${JSON.parse(event.data).behind_seconds} s.`, "broken"));
    source.addEventListener("end", (event) => {
      const { reason, resume } = JSON.parse(event.data);
      // The browser comes back by itself, with the id of the last event: another server may be there.
      if (resume) return;
      stop();
      say(`Not live any more: ${reason}.`, "broken");
    });
    source.addEventListener("error", () => {
      if (source?.readyState === EventSource.CLOSED) {
        stop();
        say("Not live: the server refused. Reload the page to see why.", "broken");
      } else if (source) {
        say("The connection broke. Reconnecting…", "broken");
      }
    });
  };

  const stop = () => {
    source?.close();
    source = null;
    button.setAttribute("aria-pressed", "false");
    say("");
  };

  button.addEventListener("click", () => (source ? stop() : start()));
  addEventListener("pagehide", () => source?.close());
}
