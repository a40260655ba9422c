// Copies the text that stands before a button.
export function copy(button) {
  if (!navigator.clipboard) return;
  button.hidden = false;
  const label = button.innerHTML;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.innerHTML = label), 1500);
  });
}
