// The page works without this: it only spares selecting the text.
const button = document.getElementById("copy");
const link = document.getElementById("link");
const source = link || document.getElementById("note");
if (button && source && navigator.clipboard) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(link ? link.value : source.textContent);
    button.textContent = "Copied";
  });
  if (link) link.addEventListener("focus", () => link.select());
}
