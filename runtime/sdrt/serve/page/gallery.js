// The images of this session, of which one is shown with what is known of it.

import { byId, make } from "./fields.js";

let chosen = null;
const entries = [];

export const latestSeed = () => entries[0]?.seed;

/** Add the images of a job, and show the first. Each has {blob, seed, width, height, parameters, body, …}. */
export function add(images) {
  for (const one of images.toReversed()) {
    one.url = URL.createObjectURL(one.blob);
    one.button = make("button", { type: "button", ariaLabel: `Show: ${label(one)}` },
      make("img", { src: one.url, alt: "" }));
    one.button.addEventListener("click", () => choose(one));
    entries.unshift(one);
    byId("gallery").prepend(make("li", {}, one.button));
  }
  byId("gallery-title").hidden = false;
  byId("seed-last").disabled = false;
  choose(images[0]);
}

const label = ({ body, seed }) => `${body.prompt || "without a prompt"}, seed ${seed}`;

export const shown = () => chosen;

function choose(entry) {
  chosen = entry;
  showChosen();
}

/** Show the chosen image, or that there is none yet. */
export function showChosen() {
  byId("stage").classList.remove("busy");
  byId("empty").hidden = Boolean(chosen);
  byId("shown").hidden = byId("caption").hidden = !chosen;
  for (const one of entries) one.button.ariaCurrent = String(one === chosen);
  if (!chosen) return;
  Object.assign(byId("shown"), { src: chosen.url, alt: label(chosen) });
  Object.assign(byId("download"), { href: chosen.url, download: `sdrt-${chosen.seed}.png` });
  const took = chosen.seconds === null ? "" : `, made in ${chosen.seconds.toFixed(1)} s`;
  byId("facts").textContent = `${chosen.width}×${chosen.height}, seed ${chosen.seed}${took}`;
  const flagged = chosen.nsfw_content_detected ? ["The safety checker flagged this image."] : [];
  byId("notices").textContent = [...flagged, ...chosen.notices].join(" ");
  byId("parameters").textContent = chosen.parameters;
}

/** Show what becomes of an image while it is made. */
export function showPreview(address) {
  byId("stage").classList.add("busy");
  byId("empty").hidden = byId("caption").hidden = true;
  Object.assign(byId("shown"), { hidden: false, src: address, alt: "Preview" });
}
