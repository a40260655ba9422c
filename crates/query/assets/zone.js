// The button for the zone of this browser, whose name only the browser knows.
export function zone(button) {
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (!name) return;
  button.value = name;
  button.textContent = `This browser’s zone (${name})`;
  button.hidden = false;
}
