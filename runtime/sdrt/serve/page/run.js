// Runs a job: sends it, follows its events, and shows its images.

import { ApiError, cancelJob, createJob, events, getJson, imageOf } from "./api.js";
import { announce, byId, clearErrors, showError } from "./fields.js";
import { add, showChosen, showPreview } from "./gallery.js";

const JOBS = "sdrt-jobs";
const MOST_KEPT = 40;
const PREVIEWS = 8;
const TRIES = 5;
const NARROW = "(max-width: 859px)"; // as in style.css
let current = null;

/** Make what `collect()` says. Errors are shown in the form. */
export async function run(collect) {
  if (current) return;
  clearErrors();
  await busy(async () => {
    const body = { ...(await collect()), previews: PREVIEWS };
    tell("Sending…", 0, 1);
    const { id } = await createJob(body);
    remember(id, body);
    current.id = id;
    if (current.isCancelled) await cancelJob(id);
    reveal();
    await follow(id, body);
  });
}

async function busy(work) {
  current = {};
  // A disabled button would lose the focus.
  byId("make").ariaDisabled = "true";
  byId("cancel").disabled = byId("progress").hidden = false;
  try {
    await work();
  } catch (error) {
    tell("", 0, 1);
    showError(error);
  } finally {
    current = null;
    byId("make").ariaDisabled = "false";
    if (document.activeElement === byId("cancel")) byId("make").focus();
    byId("cancel").disabled = byId("progress").hidden = true;
    showChosen();
  }
}

export async function cancel() {
  if (!current || current.isCancelled) return;
  current.isCancelled = true;
  byId("step").textContent = "Cancelling…";
  if (!current.id) return;
  try {
    await cancelJob(current.id);
  } catch (error) {
    showError(error);
  }
}

/** Follow a job until it is over. A broken connection is made again. */
async function follow(id, body) {
  for (let tries = 0; tries < TRIES; tries++) {
    try {
      for await (const event of events(id)) {
        tries = 0;
        if (progressed(event)) return await ended(event, id, body);
      }
    } catch (error) {
      if (error instanceof ApiError && error.status) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  throw new ApiError("The connection to the server is lost. Reload the page to see what has become of the image.");
}

/** Show an event. Returns whether it is the last. */
function progressed({ name, data }) {
  if (name === "step") step(data);
  else if (name === "status" && data.status === "queued") waiting(data);
  else if (name === "status" && data.status === "running") tell("Starting…", null, 1);
  return name === "done" || name === "failed" || name === "cancelled";
}

function waiting({ position }) {
  if (!current?.isCancelled) tell(position ? `Waiting: ${position} before this one` : "Waiting…", null, 1);
}

function step({ step: done, num_steps: all, seconds, preview }) {
  if (!current.isCancelled) {
    const left = all && seconds ? Math.ceil((seconds / done) * (all - done)) : 0;
    const words = left ? `, about ${left < 100 ? `${left} s` : `${Math.round(left / 60)} min`} left` : "";
    tell(all ? `Step ${done} of ${all}${words}` : `Step ${done}`, all ? done : null, all ?? 1);
  }
  // Screen readers hear quarters, not every step.
  if (all && Math.floor((4 * done) / all) > Math.floor((4 * (done - 1)) / all)) announce(`Step ${done} of ${all}`);
  if (!preview) return;
  showPreview(`data:image/png;base64,${preview}`);
  if (!current.isSeen) reveal();
  current.isSeen = true;
}

/** On a phone, images are below the form. */
async function reveal() {
  if (!matchMedia(NARROW).matches) return;
  await byId("shown").decode().catch(() => {}); // its height is known then
  byId("stage").scrollIntoView();
}

function tell(text, value, max) {
  byId("step").textContent = text;
  byId("progress").max = max;
  if (value === null) byId("progress").removeAttribute("value");
  else byId("progress").value = value;
}

async function ended({ name, data }, id, body) {
  if (name === "failed") throw new ApiError(data.error.detail, data.error.field, 1);
  if (name === "done") await show(data, id, body);
  const told = name === "cancelled" ? "Cancelled" : data.images.length > 1 ? `${data.images.length} images made` : "Image made";
  tell(told, 0, 1);
  announce(told);
}

async function show({ images, seconds, notices }, id, body) {
  const blobs = await Promise.all(images.map((_, index) => imageOf(id, index)));
  add(images.map((one, index) => ({ ...one, blob: blobs[index], seconds, notices, body })));
  if (!current?.isSeen) reveal();
}

const remembered = () => JSON.parse(sessionStorage.getItem(JOBS) ?? "[]");

/** Keep a job's settings until the tab is closed, but not its images, which are too large. */
function remember(id, { image, mask_image, control_image, ip_adapter_image, ...body }) {
  const lostImage = Boolean(image || control_image || ip_adapter_image);
  const kept = [...remembered(), { id, body: lostImage ? { ...body, lostImage } : body }];
  sessionStorage.setItem(JOBS, JSON.stringify(kept.slice(-MOST_KEPT)));
}

/** After the page was loaded again, show the jobs that the server still has, and follow the one that runs. */
export async function resume() {
  for (const { id, body } of remembered()) {
    const job = await getJson(`jobs/${id}`).catch(() => null);
    if (job?.status === "done") await show(job, id, body).catch(() => {});
    if (job?.status === "queued" || job?.status === "running") {
      await busy(async () => {
        current.id = id;
        await follow(id, body);
      });
    }
  }
}
