// Images that are dropped on the page or pasted into it.

import { byId } from "./fields.js";

/** Call `take.settings(file)` or `take.image(file)` for what the user drops, and the second for what is pasted. */
export function watchDrops(take) {
  const area = byId("drop");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    area.querySelector("[data-drop=image]").hidden = byId("start").hidden;
    area.hidden = false;
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    for (const one of area.children) one.classList.toggle("over", one === event.target);
  });
  addEventListener("dragleave", (event) => {
    // Null when the pointer leaves the window.
    if (!event.relatedTarget) area.hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    area.hidden = true;
    const [file] = event.dataTransfer.files;
    const place = event.target.closest?.("[data-drop]");
    if (file && place) take[place.dataset.drop](file);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (!file || byId("start").hidden) return;
    event.preventDefault();
    take.image(file);
  });
}
