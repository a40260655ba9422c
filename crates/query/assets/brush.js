// Dragging over a histogram narrows the search down to that span. A click without a drag follows the bar below it.
const SHORTEST = 6;

export function brush(chart) {
  const [from, to, left, width] = ["from", "to", "left", "width"].map((name) => Number(chart.dataset[name]));
  const shade = chart.querySelector(".brush");
  let began = null;
  let dragged = false;

  const place = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    return Math.min(Math.max(at.x, left), left + width);
  };
  const time = (x) => new Date((from + ((x - left) / width) * (to - from)) * 1000).toISOString();

  chart.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    began = place(event);
    dragged = false;
  });
  // Links would be dragged themselves.
  chart.addEventListener("dragstart", (event) => event.preventDefault());
  document.addEventListener("pointermove", (event) => {
    if (began === null) return;
    const now = place(event);
    if (Math.abs(now - began) < SHORTEST && !dragged) return;
    dragged = true;
    shade.removeAttribute("hidden");
    shade.setAttribute("x", Math.min(began, now));
    shade.setAttribute("width", Math.abs(now - began));
  });
  document.addEventListener("pointerup", (event) => {
    if (began === null) return;
    const [start, end] = [began, place(event)].sort((a, b) => a - b);
    began = null;
    if (!dragged) return;
    const here = new URL(location.href);
    // Seconds are enough for a hand.
    const bound = (key, x) => `${key}:"${time(x).replace(/\.\d+Z$/, "Z")}"`;
    const rest = (here.searchParams.get("q") ?? "").split(/ (?=(?:[^"]*"[^"]*")*[^"]*$)/).filter((word) => word && !/^connected_(after|before):/i.test(word));
    here.searchParams.set("q", [...rest, bound("connected_after", start), bound("connected_before", end)].join(" "));
    ["range", "after", "trail"].forEach((name) => here.searchParams.delete(name));
    location.assign(here);
  });
  // A touch that became a scroll is no drag, and Escape gives one up.
  const giveUp = () => {
    began = null;
    dragged = false;
    shade.setAttribute("width", 0);
  };
  document.addEventListener("pointercancel", giveUp);
  document.addEventListener("keydown", (event) => event.key === "Escape" && giveUp());
  chart.addEventListener(
    "click",
    (event) => {
      if (dragged) event.preventDefault();
      dragged = false;
    },
    true,
  );
}
