// The image to start from, and the mask that is painted on it.

import { announce, byId } from "./fields.js";
import { addressOf, blobOf } from "./files.js";

const PAINT = "#e100ff";
const MOST_HIGH = 480;
let image = null; // {blob, width, height}, where the sizes are 0 for a file that this browser cannot show
let changed = () => {};
let limit = Infinity;
let isErasing = false;
let last = null;
const canvas = byId("mask");
const pen = canvas.getContext("2d", { willReadFrequently: true });

export const onChange = (listener) => (changed = listener);
export const setLimit = (pixels) => (limit = pixels);
/** The size of the image, or null without one. */
export const size = () => image;

/** Start from a file. One with more pixels than the server takes is made smaller. */
export async function setImage(file) {
  let blob = file;
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    // TIFF, for one. The server may read it.
  }
  let note = `${file.name ?? "image"}, ${bitmap ? `${bitmap.width}×${bitmap.height}` : "which this browser cannot show"}`;
  if (bitmap && bitmap.width * bitmap.height > limit) {
    const by = Math.sqrt(limit / (bitmap.width * bitmap.height));
    const [width, height] = [Math.floor(bitmap.width * by), Math.floor(bitmap.height * by)];
    bitmap = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
    blob = await pngOf(bitmap);
    note += `, made smaller to ${width}×${height}, the most that this server takes`;
  }
  show(blob, bitmap, note);
}

function show(blob, bitmap, note) {
  image = { blob, width: bitmap?.width ?? 0, height: bitmap?.height ?? 0 };
  canvas.width = bitmap?.width ?? 1;
  canvas.height = bitmap?.height ?? 1;
  URL.revokeObjectURL(byId("start-image").src);
  byId("start-image").src = URL.createObjectURL(blob);
  const { style } = byId("painter");
  style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  style.width = `min(100%, ${Math.round((MOST_HIGH * canvas.width) / canvas.height)}px)`;
  byId("masking").hidden = !bitmap;
  byId("image-note").textContent = note;
  toggle(true);
}

function toggle(isFull) {
  byId("start-full").hidden = !isFull;
  byId("start-empty").hidden = isFull;
  changed();
}

export function removeImage() {
  if (!image) return;
  image = null;
  URL.revokeObjectURL(byId("start-image").src);
  byId("start-image").removeAttribute("src");
  toggle(false);
}

async function pngOf(bitmap) {
  const whole = new OffscreenCanvas(bitmap.width, bitmap.height);
  whole.getContext("2d").drawImage(bitmap, 0, 0);
  return whole.convertToBlob({ type: "image/png" });
}

/** The fields of a job: the image, and the mask if anything is painted. */
export async function images() {
  const found = { image: await addressOf(image.blob) };
  if (image.width && isPainted()) found.mask_image = await addressOf(await maskFile());
  return found;
}

/** Whether anything is painted. */
export const isPainted = () => pen.getImageData(0, 0, canvas.width, canvas.height).data.some((byte, at) => at % 4 === 3 && byte);

/** White where there is paint, and black elsewhere. */
async function maskFile() {
  const whole = new OffscreenCanvas(canvas.width, canvas.height);
  const context = whole.getContext("2d");
  context.drawImage(canvas, 0, 0);
  for (const [operation, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
    context.globalCompositeOperation = operation;
    context.fillStyle = colour;
    context.fillRect(0, 0, whole.width, whole.height);
  }
  return whole.convertToBlob({ type: "image/png" });
}

/** Show the image and the mask of a job again. */
export async function restore(imageAddress, maskAddress) {
  removeImage();
  if (!imageAddress) return;
  await setImage(blobOf(imageAddress));
  if (maskAddress) await setMask(blobOf(maskAddress));
}

/** Paint what is white in a file. */
export async function setMask(file) {
  const bitmap = await createImageBitmap(file);
  clear();
  pen.globalCompositeOperation = "source-over";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(PAINT.slice(at, at + 2), 16));
  for (let at = 0; at < data.length; at += 4) {
    const white = (0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]) * (data[at + 3] / 255);
    data.set([red, green, blue, Math.round(white)], at);
  }
  pen.putImageData(pixels, 0, 0);
  announce("Mask read");
  changed();
}

function clear() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
}

const brush = () => Math.max(1, (byId("brush").value / 100) * 0.6 * Math.min(canvas.width, canvas.height));

function placeOf(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}

function stroke(event) {
  pen.globalCompositeOperation = isErasing ? "destination-out" : "source-over";
  pen.strokeStyle = PAINT;
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = brush();
  const seen = event.getCoalescedEvents?.() ?? [];
  for (const one of seen.length ? seen : [event]) {
    const to = placeOf(one);
    pen.beginPath();
    pen.moveTo(...(last ?? to));
    pen.lineTo(to[0], to[1] + 0.01); // a line of no length would not be drawn
    pen.stroke();
    last = to;
  }
}

/** Show how large the brush is. */
function moveRing(event) {
  const box = canvas.getBoundingClientRect();
  const side = (brush() / canvas.width) * box.width;
  const { style } = byId("ring");
  style.width = style.height = `${side}px`;
  style.left = `${event.clientX - box.left - side / 2}px`;
  style.top = `${event.clientY - box.top - side / 2}px`;
}

function press(erases) {
  isErasing = erases;
  byId("mask-paint").ariaPressed = String(!erases);
  byId("mask-erase").ariaPressed = String(erases);
}

byId("mask-paint").addEventListener("click", () => press(false));
byId("mask-erase").addEventListener("click", () => press(true));
byId("mask-clear").addEventListener("click", () => {
  clear();
  changed();
  announce("Mask cleared");
});
canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
canvas.addEventListener("pointermove", (event) => {
  moveRing(event);
  if (canvas.hasPointerCapture(event.pointerId)) stroke(event);
});
canvas.addEventListener("lostpointercapture", () => changed());
canvas.addEventListener("pointerenter", () => (byId("ring").hidden = false));
canvas.addEventListener("pointerleave", () => (byId("ring").hidden = true));
