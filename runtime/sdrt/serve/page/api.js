// What the page asks of the server. Addresses are relative, so that the page also works below a prefix.

import { askForKey } from "./dialogs.js";

const KEY = "sdrt-key";

/** An answer that is not a result, with the field of the request that is wrong. */
export class ApiError extends Error {
  constructor(message, field = null, status = 0) {
    super(message);
    Object.assign(this, { field, status });
  }
}

export const key = () => sessionStorage.getItem(KEY);
export const setKey = (value) => sessionStorage.setItem(KEY, value);

/** The answer to a request. Asks for a key when the server does. Throws ApiError. */
export async function send(method, path, { body, type, signal } = {}) {
  for (let tries = 0; ; tries++) {
    const sent = key();
    const headers = sent ? { Authorization: `Bearer ${sent}` } : {};
    if (type) headers["Content-Type"] = type;
    let answer;
    try {
      answer = await fetch(path, { method, headers, body, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server cannot be reached.");
    }
    if (answer.ok) return answer;
    const error = await errorOf(answer);
    if (answer.status !== 401) throw error;
    // Another request may have asked the user meanwhile.
    if (key() !== sent) continue;
    const given = await askForKey(sent ? "The server does not know this key." : "");
    if (given === null) throw error;
    setKey(given);
  }
}

async function errorOf(answer) {
  try {
    const told = await answer.json();
    return new ApiError(told.detail, told.field, answer.status);
  } catch {
    return new ApiError(`The server answered ${answer.status}.`, null, answer.status);
  }
}

export const getJson = async (path) => parsed(await (await send("GET", path)).text());

/** Make a job. Returns its description. */
export async function createJob(body) {
  const { seed, ...rest } = body;
  const text = JSON.stringify(rest);
  // Seeds may have more digits than JavaScript's numbers.
  const whole = seed === undefined ? text : `{"seed":${seed},${text.slice(1)}`;
  return parsed(await (await send("POST", "jobs", { body: whole, type: "application/json" })).text());
}

export const cancelJob = (id) => send("DELETE", `jobs/${id}`);

/** How an image was made. */
export async function readMetadata(file) {
  const answer = await send("POST", "metadata", { body: file, type: "application/octet-stream" });
  return parsed(await answer.text());
}

export const imageOf = async (id, index) => (await send("GET", `jobs/${id}/images/${index}`)).blob();

/** The events of a job: {name, data}. EventSource cannot send a key, so the stream is read here. */
export async function* events(id) {
  const answer = await send("GET", `jobs/${id}/events`);
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = parts.pop();
    // Comments keep the connection open.
    for (const part of parts) if (!part.startsWith(":")) yield eventOf(part);
  }
}

function eventOf(text) {
  const lines = text.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
  const { event, data } = Object.fromEntries(lines);
  return { name: event, data: parsed(data) };
}

/** JSON, with seeds as texts. */
function parsed(text) {
  return JSON.parse(text, (name, value, context) =>
    name === "seed" && typeof value === "number" ? (context?.source ?? String(value)) : value);
}
