// Keys: "/" goes to the search; Escape closes what is open.
export function keys() {
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const search = document.getElementById("q");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    }
    if (event.key === "Escape") {
      const open = document.querySelector("details[data-dismiss][open]");
      if (open) {
        open.open = false;
        open.querySelector("summary").focus();
      }
    }
  });
  document.addEventListener("click", (event) => {
    document.querySelectorAll("details[data-dismiss][open]").forEach((open) => {
      if (!open.contains(event.target)) open.open = false;
    });
  });
}
