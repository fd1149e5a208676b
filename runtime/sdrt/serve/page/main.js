// The page: what its buttons do.

import { ApiError, getJson, readMetadata, setKey } from "./api.js";
import { askForKey } from "./dialogs.js";
import { watchDrops } from "./drop.js";
import { announce, byId, showError, watchErrors } from "./fields.js";
import { fileButton } from "./files.js";
import { collect, facts, fill, limits, offer } from "./form.js";
import { latestSeed, shown } from "./gallery.js";
import * as start from "./mask.js";
import { cancel, resume, run } from "./run.js";

/** Do `work`, and show its error. */
const guarded = (work) => async (...given) => {
  try {
    await work(...given);
  } catch (error) {
    showError(error);
  }
};

const startFrom = guarded(async (file) => {
  await start.setImage(file);
  fitSize();
  byId("start").scrollIntoView({ block: "nearest" });
  announce(byId("image-note").textContent);
});

/** For an image much larger than the model's, ask for one of the model's size and the image's shape. */
function fitSize() {
  const { width, height } = start.size();
  const { width: wide, height: tall, size_step: step } = facts();
  if (!wide || width * height <= 2 * wide * tall) return;
  const by = Math.sqrt((wide * tall) / (width * height));
  for (const [id, side] of [["width", width], ["height", height]]) {
    byId(id).value = Math.max(step, Math.round((side * by) / step) * step);
  }
  byId("image-note").textContent += `. Width and height are set to the model’s usual size.`;
}

const readSettings = guarded(async (file) => {
  byId("settings-note").textContent = "";
  const { request, program, differences } = await readMetadata(file);
  const missing = await fill(request, { keepsImage: true });
  const lacks = [...differences.map(({ label, value }) => (value ? `${label} (${value})` : label)), ...missing];
  const notes = [`Settings of ${file.name}${program ? `, made by ${program},` : ""} are in the form.`];
  if (lacks.length) notes.push(`These differ: ${lacks.join(", ")}.`);
  if ("strength" in request && !start.size()) notes.push("It was made from another image: add that one.");
  byId("settings-note").textContent = notes.join(" ");
});

const readMask = guarded(async (file) => {
  try {
    await start.setMask(file);
  } catch {
    throw new ApiError("This browser cannot show the mask: take PNG, JPEG or WebP.", "mask_image");
  }
});

const useSettings = guarded(async () => {
  const { lostImage, num_images_per_prompt: _, ...body } = shown().body;
  const missing = await fill({ ...body, seed: shown().seed });
  const notes = missing.length ? [`The server no longer has: ${missing.join(", ")}.`] : ["Settings are in the form."];
  if (lostImage) notes.push("The image that it was made from is no longer here: add it.");
  byId("settings-note").textContent = notes.join(" ");
  byId("prompt").focus();
});

function onClick(id, work) {
  byId(id).addEventListener("click", work);
}

function setSeed(value) {
  byId("seed").value = value;
  byId("seed").dispatchEvent(new Event("input", { bubbles: true }));
}

function begin() {
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(collect);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("key-dialog").open) {
      event.preventDefault();
      run(collect);
    }
  });
  watchErrors(byId("form"));
  for (const [name, take] of [["image", startFrom], ["mask", readMask], ["settings", readSettings]]) {
    fileButton(byId(`${name}-choose`), byId(`${name}-file`), take);
  }
  watchDrops({ image: startFrom, settings: readSettings });
  onClick("cancel", cancel);
  onClick("seed-random", () => setSeed(""));
  onClick("seed-last", () => setSeed(latestSeed()));
  onClick("use-settings", useSettings);
  onClick("use-image", () => startFrom(new File([shown().blob], `seed ${shown().seed}`, { type: shown().blob.type })));
  onClick("image-remove", () => {
    start.removeImage();
    byId("image-choose").focus();
  });
  onClick("key-button", async () => {
    const given = await askForKey("");
    if (given === null) return;
    setKey(given);
    await load();
  });
}

/** Offer what the server has, and show what it still keeps of this session. */
const load = guarded(async () => {
  const isFirst = !limits();
  byId("form-error").textContent = "";
  offer(await getJson("info"));
  start.setLimit(limits().pixels);
  if (isFirst) await resume();
});

begin();
await load();
