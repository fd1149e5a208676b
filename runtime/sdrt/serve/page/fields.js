// Elements by their ids, errors beside the fields that they name, and what is told to screen readers.

export const byId = (id) => document.getElementById(id);

/** A new element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Tell a screen reader. */
export const announce = (text) => (byId("live").textContent = text);

export function clearErrors() {
  byId("form-error").textContent = "";
  for (const error of document.querySelectorAll(".field-error")) clearError(error.parentElement);
}

function clearError(place) {
  place.querySelector(":scope > .field-error")?.remove();
  for (const input of place.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    describe(input, (ids) => ids.filter((id) => !id.startsWith("error-")));
  }
}

/** Show an error beside its field if the page has that field, otherwise beside the button. */
export function showError(error) {
  const name = String(error.field ?? "").split(".")[0];
  const place = name && document.querySelector(`[data-field="${CSS.escape(name)}"]`);
  // The parts of the image's fieldset are hidden while there is no image.
  if (!place || place.closest("[hidden]")) {
    byId("form-error").textContent = error.message;
    return;
  }
  clearError(place);
  const id = `error-${name}`;
  place.append(make("p", { id, className: "error field-error", textContent: error.message, role: "alert" }));
  const input = [...place.querySelectorAll("input, textarea, select, button")].find((one) => one.offsetParent);
  if (!input) return;
  input.ariaInvalid = "true";
  describe(input, (ids) => [...ids, id]);
  input.focus();
}

function describe(input, change) {
  const ids = change((input.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean));
  if (ids.length) input.setAttribute("aria-describedby", ids.join(" "));
  else input.removeAttribute("aria-describedby");
}

/** Errors go away when their field is changed. */
export function watchErrors(form) {
  form.addEventListener("input", (event) => {
    const place = event.target.closest("[data-field]");
    if (place) clearError(place);
  });
}
