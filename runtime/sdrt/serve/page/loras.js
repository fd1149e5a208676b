// The LoRAs of a job, chosen by their names in the server's folder, each with its weight.

import { announce, byId, make } from "./fields.js";

let known = [];

export function offerLoras(names) {
  known = names;
  byId("loras").hidden = !names.length;
  byId("lora-name").replaceChildren(...names.map((value) => make("option", { value, textContent: value })));
}

byId("lora-add").addEventListener("click", () => {
  add(byId("lora-name").value, 1).focus();
  announce(`${byId("lora-name").value} added`);
});

function add(name, weight) {
  const input = make("input", { type: "number", step: "0.05", value: weight, ariaLabel: `Weight of ${name}` });
  const button = make("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${name}` });
  const item = make("li", { className: "joined" }, make("span", { textContent: name }), input, button);
  item.dataset.name = name;
  button.addEventListener("click", () => {
    item.remove();
    byId("lora-add").focus();
  });
  byId("lora-list").append(item);
  return input;
}

/** The LoRAs as a job has them. */
export const lorasOf = () =>
  [...byId("lora-list").children].map((item) => ({
    name: item.dataset.name,
    weight: Number(item.querySelector("input").value || 1),
  }));

/** Show the LoRAs of a job. Returns those that the server does not have. */
export function fillLoras(loras) {
  byId("lora-list").replaceChildren();
  for (const { name, weight } of loras) if (known.includes(name)) add(name, weight ?? 1);
  return loras.filter(({ name }) => !known.includes(name)).map(({ name }) => `LoRA ${name}`);
}
