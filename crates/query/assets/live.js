// The tail: rows arrive above what is there, and what is being read stays where it is.
const MOST_WAITING = 500;
// How long to wait before coming back to a server that refused.
const PAUSE = 5_000;

export function live(button) {
  const days = document.querySelector("[data-days]");
  const state = document.querySelector("[data-live-state]");
  const offer = document.querySelector("[data-live-offer]");
  let source = null;
  let timer = 0;
  let since = null;
  let waiting = [];
  let older = 0;
  button.hidden = false;

  const say = (text, kind = "") => {
    state.dataset.kind = kind;
    if (state.textContent !== text) state.textContent = text;
  };

  const well = () => say(older ? `Live. ${older} of the entries on older pages changed.` : "Live.");

  const row = (event) => {
    const { id, date, label, html } = JSON.parse(event.data);
    const template = document.createElement("template");
    template.innerHTML = html;
    return { id, date, label, element: template.content.firstElementChild };
  };

  const find = (id) => days.querySelector(`[data-id="${CSS.escape(id)}"]`);
  const time = (item) => item.querySelector("time").dateTime;

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
    const known = find(id);
    if (known) {
      const focused = known.contains(document.activeElement);
      known.replaceWith(element);
      if (focused) element.querySelector("a")?.focus({ preventScroll: true });
      return;
    }
    const rows = section(date, label).querySelector("ol");
    const below = [...rows.children].find((other) => time(other) < time(element));
    rows.insertBefore(element, below ?? null);
  };

  const show = () => {
    waiting.splice(0).forEach(put);
    offer.hidden = true;
  };

  offer.addEventListener("click", () => {
    show();
    scrollTo({ top: 0 });
  });

  const arrived = (event) => {
    since = event.lastEventId;
    const made = row(event);
    if (!made.element) return;
    const rows = days.querySelectorAll("[data-id]");
    if (!find(made.id) && rows.length > 0 && time(made.element) < time(rows[rows.length - 1])) {
      // Between it and what is shown there may be others: it belongs to a page further down.
      older += 1;
      well();
      return;
    }
    const isReading = scrollY > 0 || days.matches(":hover, :focus-within");
    if (find(made.id) || !isReading) {
      put(made);
      return;
    }
    waiting = waiting.filter((other) => other.id !== made.id);
    waiting.push(made);
    // Nobody reads so many; the log has them.
    if (waiting.length > MOST_WAITING) waiting.shift();
    offer.textContent = `Show ${waiting.length} new ${waiting.length === 1 ? "entry" : "entries"}`;
    offer.hidden = false;
  };

  const start = () => {
    button.setAttribute("aria-pressed", "true");
    say("Connecting…");
    const url = new URL(button.dataset.live, location.href);
    if (since) url.searchParams.set("since", since);
    source = new EventSource(url);
    source.addEventListener("ready", (event) => {
      since = event.lastEventId;
      well();
    });
    for (const kind of ["connect", "disconnect", "inferred", "web"]) source.addEventListener(kind, arrived);
    source.addEventListener("position", (event) => {
      since = event.lastEventId;
      well();
    });
    source.addEventListener("lag", (event) => say(`Behind by ${JSON.parse(event.data).behind_seconds} s.`, "broken"));
    source.addEventListener("end", (event) => {
      const { reason, resume } = JSON.parse(event.data);
      // The browser comes back by itself, with the id of the last event: another server may be there.
      if (resume) return;
      stop();
      say(`Not live any more: ${reason}.`, "broken");
    });
    source.addEventListener("error", async () => {
      const refused = source?.readyState === EventSource.CLOSED;
      if (!source) return;
      say("The connection broke. Reconnecting…", "broken");
      if (!refused) return;
      source = null;
      const answer = await fetch("/complete").catch(() => null);
      if (answer?.status === 401) {
        stop();
        say("Not live any more: the session has ended. Sign in again.", "broken");
      } else if (button.getAttribute("aria-pressed") === "true") {
        if (answer?.ok) say("The server has no room for another one that looks live. It is tried again.", "broken");
        timer = setTimeout(start, PAUSE);
      }
    });
  };

  const stop = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
    show();
    button.setAttribute("aria-pressed", "false");
    say("");
  };

  button.addEventListener("click", () => (button.getAttribute("aria-pressed") === "true" ? stop() : start()));
  addEventListener("pagehide", () => source?.close());
}
