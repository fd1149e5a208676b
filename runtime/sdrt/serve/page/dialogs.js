// The dialog that asks for the server's key.

import { byId } from "./fields.js";

let asking = null;

/** The key that the user gives, or null. Several requests share one dialog. */
export function askForKey(problem) {
  asking ??= opened(problem).finally(() => (asking = null));
  return asking;
}

function opened(problem) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  byId("key-error").textContent = problem;
  byId("key-button").hidden = false;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "ok" && input.value.trim() ? input.value.trim() : null),
      { once: true },
    );
  });
}
