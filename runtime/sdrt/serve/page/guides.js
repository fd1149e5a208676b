// Images for the model's ControlNets and IP-Adapters: one for each, with its weight.

import { ApiError } from "./api.js";
import { byId, make } from "./fields.js";
import { addressOf, blobOf, fileButton } from "./files.js";

const KINDS = [
  { box: "controls", names: "controlnets", image: "control_image", weight: "controlnet_conditioning_scale",
    preprocessor: "control_preprocessor" },
  { box: "image-prompts", names: "ip_adapters", image: "ip_adapter_image", weight: "ip_adapter_scale" },
];
/** The fields of a job that stand here. */
export const GUIDES = KINDS.flatMap(({ image, weight, preprocessor = weight }) => [image, weight, preprocessor]);

const rowsOf = ({ box }) => [...byId(box).querySelectorAll("li")];

/** Offer what a model has. Nothing changes for a model with the same ones. */
export function offerGuides(model, preprocessors) {
  for (const kind of KINDS) {
    const names = model[kind.names] ?? [];
    if (rowsOf(kind).map((row) => row.dataset.name).join("/") === names.join("/")) continue;
    byId(kind.box).hidden = !names.length;
    byId(kind.box).querySelector("ul").replaceChildren(...names.map((name) => rowFor(kind, name, preprocessors)));
  }
}

function rowFor(kind, name, preprocessors) {
  const choose = make("button", { type: "button", textContent: "Choose…", ariaLabel: `Choose an image for ${name}` });
  const remove = make("button", { type: "button", textContent: "Remove", ariaLabel: `Remove the image for ${name}`, hidden: true });
  const file = make("input", { type: "file", accept: "image/*", hidden: true, ariaLabel: `Image for ${name}` });
  const weight = make("input", { type: "number", step: "0.05", placeholder: "weight", ariaLabel: `Weight of ${name}` });
  const options = kind.preprocessor ? preprocessors.map((value) =>
    make("option", { value, textContent: value === "none" ? "as it is" : value })) : [];
  const select = make("select", { ariaLabel: `Preprocessor for ${name}`, hidden: !kind.preprocessor }, ...options);
  const row = make("li", { className: "joined" }, make("span", { textContent: name }),
    make("img", { alt: "", hidden: true, className: "thumb" }), choose, remove, file, weight, select);
  row.dataset.name = name;
  fileButton(choose, file, (blob) => setImage(row, blob));
  remove.addEventListener("click", () => {
    setImage(row, null);
    choose.focus();
  });
  return row;
}

const images = new WeakMap();

function setImage(row, blob) {
  const thumb = row.querySelector("img");
  URL.revokeObjectURL(thumb.src);
  images.set(row, blob);
  thumb.hidden = row.querySelectorAll("button")[1].hidden = !blob;
  if (blob) thumb.src = URL.createObjectURL(blob);
}

const weightOf = (row) => row.querySelector("input[type=number]").value;

/** The fields of a job. Throws ApiError if only some have an image. */
export async function guides() {
  const found = {};
  for (const kind of KINDS) {
    const rows = rowsOf(kind);
    const files = rows.map((row) => images.get(row));
    if (!files.some(Boolean)) continue;
    if (!files.every(Boolean)) throw new ApiError("Each of them needs an image.", kind.image);
    found[kind.image] = await Promise.all(files.map(addressOf));
    if (rows.some(weightOf)) found[kind.weight] = rows.map((row) => Number(weightOf(row) || 1));
    if (kind.preprocessor) found[kind.preprocessor] = rows.map((row) => row.querySelector("select").value);
  }
  return found;
}

/** Show those of a job. Without `keepsImage`, also its images. Returns what this model does not have. */
export function fillGuides(job, keepsImage) {
  const missing = [];
  for (const kind of KINDS) {
    const rows = rowsOf(kind);
    const [files, weights, preprocessors] = [kind.image, kind.weight, kind.preprocessor].map((name) => [job[name] ?? []].flat());
    if (Math.max(files.length, weights.length) > rows.length) missing.push(kind.names);
    rows.forEach((row, index) => {
      row.querySelector("input[type=number]").value = weights[index] ?? "";
      if (kind.preprocessor) row.querySelector("select").value = preprocessors[index] ?? "none";
      if (!keepsImage) setImage(row, files[index] ? blobOf(files[index]) : null);
    });
  }
  return missing;
}
