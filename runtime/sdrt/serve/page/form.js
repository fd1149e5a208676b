// The form: which settings there are, what the model uses without them, and how they become a job.

import { ApiError } from "./api.js";
import { announce, byId, clearErrors, make } from "./fields.js";
import { fillGuides, guides, GUIDES, offerGuides } from "./guides.js";
import { fillLoras, lorasOf, offerLoras } from "./loras.js";
import * as start from "./mask.js";

const TEXTS = ["prompt", "negative_prompt"];
const NUMBERS = ["width", "height", "num_inference_steps", "guidance_scale", "num_images_per_prompt"];
const CHOICES = ["scheduler", "spacing"];
const HERE = new Set([...TEXTS, ...NUMBERS, ...CHOICES, "model", "seed", "strength", "lora", "image", "mask_image",
  "previews", ...GUIDES]);
let offered = null;
let extras = {};

/** Offer what the server has. */
export function offer(info) {
  offered = info;
  options("model", info.models.map(({ name }) => [name, name]));
  byId("model").value = info.default_model;
  byId("num_images_per_prompt").max = info.limits.images;
  byId("num_inference_steps").max = info.limits.steps;
  offerLoras(info.loras);
  options("spacing", [["", "the scheduler’s"], ...info.spacings.map(({ name, title }) => [name, title])]);
  showModel();
}

byId("model").addEventListener("change", showModel);

function options(id, rows) {
  const chosen = byId(id).value;
  byId(id).replaceChildren(...rows.map(([value, textContent]) => make("option", { value, textContent })));
  if (rows.some(([value]) => value === chosen)) byId(id).value = chosen;
}

/** What is known of the chosen model. */
export const facts = () => offered?.models.find(({ name }) => name === byId("model").value) ?? {};
export const limits = () => offered?.limits;

/** Show the model's own values where nothing is given. */
function showModel() {
  if (!offered) return;
  const own = facts();
  const size = start.size();
  const strength = size?.width && start.isPainted() ? own.masked_strength : own.strength;
  const shown = { ...own, strength, width: size?.width || own.width, height: size?.height || own.height };
  for (const name of ["width", "height", "num_inference_steps", "guidance_scale", "strength"]) {
    byId(name).placeholder = shown[name] ?? "the model’s";
  }
  const titles = new Map(offered.schedulers.map(({ name, title }) => [name, title]));
  const names = own.schedulers ?? [...titles.keys()];
  const usual = titles.has(own.scheduler) ? `${titles.get(own.scheduler)} (the model’s)` : "the model’s";
  options("scheduler", [["", usual], ...names.map((name) => [name, titles.get(name)])]);
  offerGuides(own, offered.preprocessors);
  byId("start").hidden = own.takes_image === false;
}

start.onChange(showModel);

/** The job that the form asks for. Throws ApiError with the field of a value that is none. */
export async function collect() {
  const model = byId("model").value; // none before the server has said which it has
  const body = model ? { ...extras, model } : { ...extras };
  for (const name of TEXTS) if (byId(name).value.trim()) body[name] = byId(name).value;
  body.prompt ??= "";
  for (const name of NUMBERS) number(body, name);
  for (const name of CHOICES) if (byId(name).value) body[name] = byId(name).value;
  const seed = byId("seed").value.trim();
  if (seed && !/^-?(0|[1-9]\d*)$/.test(seed)) throw new ApiError("Expected a whole number.", "seed");
  if (seed) body.seed = seed;
  const loras = lorasOf();
  if (loras.length) body.lora = loras;
  Object.assign(body, await guides());
  if (start.size()) {
    Object.assign(body, await start.images());
    number(body, "strength");
  }
  return body;
}

function number(body, name) {
  const { value, validity } = byId(name);
  if (validity.badInput) throw new ApiError("Expected a number.", name);
  if (value !== "") body[name] = Number(value);
}

/** Fill the form with the settings of a job. Returns those for which the server offers no such choice. */
export async function fill(job, { keepsImage = false } = {}) {
  clearErrors();
  const missing = [];
  for (const name of [...TEXTS, ...NUMBERS, "strength"]) byId(name).value = job[name] ?? "";
  byId("seed").value = job.seed ?? "";
  if (job.model && job.model !== byId("model").value) {
    choose("model", job.model, missing);
    showModel();
  }
  for (const name of CHOICES) choose(name, job[name] ?? "", missing);
  missing.push(...fillLoras(job.lora ?? []), ...fillGuides(job, keepsImage));
  extras = Object.fromEntries(Object.entries(job).filter(([name]) => !HERE.has(name)));
  // A missing negative prompt is not an empty one: SDXL takes zeros for it.
  if (job.negative_prompt === "") extras.negative_prompt = "";
  showExtras();
  if (!keepsImage) await start.restore(job.image, job.mask_image);
  return missing;
}

function choose(id, value, missing) {
  const known = [...byId(id).options].some((one) => one.value === value);
  if (known) byId(id).value = value;
  else missing.push(`${id} ${value}`);
}

/** The settings that have no field of their own, each with a button that removes it. */
function showExtras() {
  byId("extras").hidden = !Object.keys(extras).length;
  byId("extra-list").replaceChildren(...Object.entries(extras).map(([name, value]) => {
    const text = `${name}: ${value === "" ? "empty" : Array.isArray(value) ? value.join(", ") : value}`;
    const button = make("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${name}` });
    button.addEventListener("click", () => {
      delete extras[name];
      showExtras();
      announce(`${name} removed`);
      (byId("extra-list").querySelector("button") ?? byId("make")).focus();
    });
    const item = make("li", { className: "joined" }, make("span", { textContent: text }), button);
    item.dataset.field = name;
    return item;
  }));
}
