// Makes images from a bundle that `sdrt bundle` wrote, with ONNX Runtime for browsers or for Node.
// docs/bundle.md describes the files and the loop.

/** Normal noise equal to that of torch's CPU generator, so that a seed gives the same image as in Python. */
export class Generator {
  /** @param {number | bigint} seed an integer; its low 32 bits count, as in torch. */
  constructor(seed) {
    const words = new Uint32Array(624);
    words[0] = Number(BigInt.asUintN(32, BigInt(seed)));
    for (let n = 1; n < 624; n++) {
      const last = words[n - 1] ^ (words[n - 1] >>> 30);
      words[n] = Math.imul(last, 1812433253) + n;
    }
    this.words = words;
    this.next = 624;
  }

  /** The next word of the Mersenne Twister (MT19937). */
  word() {
    const { words } = this;
    if (this.next === 624) {
      for (let n = 0; n < 624; n++) {
        const joined = (words[n] & 0x80000000) | (words[(n + 1) % 624] & 0x7fffffff);
        words[n] = words[(n + 397) % 624] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
      }
      this.next = 0;
    }
    let word = words[this.next++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  }

  /** Draw `size` values, at least 16: torch draws fewer in another way. */
  randn(size) {
    if (size < 16) throw new RangeError(`${size} values: expected 16 or more`);
    const made = new Float32Array(size);
    const whole = size - (size % 16);
    const drawn = Array.from({ length: size }, () => (this.word() & 0xffffff) * 2 ** -24);
    for (let at = 0; at < whole; at += 16) block(drawn.slice(at, at + 16), made.subarray(at, at + 16));
    if (whole < size) {
      // The last 16 values are drawn again.
      const again = Array.from({ length: 16 }, () => (this.word() & 0xffffff) * 2 ** -24);
      block(again, made.subarray(size - 16));
    }
    return made;
  }
}

/** Box–Muller: 8 radii and 8 angles make 16 values. The angle is rounded to float32, as in torch. */
function block(uniforms, into) {
  for (let n = 0; n < 8; n++) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniforms[n]));
    const angle = Math.fround(Math.fround(uniforms[n + 8]) * Math.fround(2 * Math.PI));
    into[n] = radius * Math.cos(angle);
    into[n + 8] = radius * Math.sin(angle);
  }
}

const WORDS = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;

/** CLIP's byte-level BPE, from the bundle's tokenizer.json. */
export class Tokenizer {
  constructor(json, { length, start, end, padding }) {
    const { vocab, merges } = json.model;
    Object.assign(this, { vocab, length, start, end, padding });
    const pairs = merges.map((pair) => (Array.isArray(pair) ? pair.join(" ") : pair));
    this.ranks = new Map(pairs.map((pair, rank) => [pair, rank]));
    this.unknown = vocab[json.model.unk_token];
    // Words with ids of their own, such as <|endoftext|>, are not split.
    this.added = new Map(json.added_tokens.map(({ content, id }) => [content, id]));
    const escaped = [...this.added.keys()].map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.special = new RegExp(`(${escaped.join("|")})`, "u");
  }

  /** The ids of a text, of the plan's length: those that do not fit are left out. */
  encode(text) {
    const made = [this.start, ...this.ids(text).slice(0, this.length - 2), this.end];
    return [...made, ...Array(this.length - made.length).fill(this.padding)];
  }

  /** The ids of a text, without start and end: at least the first that fit, and one more if it has more. */
  ids(text) {
    // Letter by letter: JavaScript's toLowerCase knows rules for whole words, which CLIP's tokenizer does not.
    const plain = text.normalize("NFC").replace(/\p{White_Space}+/gu, " ");
    const lower = [...plain].map((letter) => letter.toLowerCase()).join("");
    const parts = this.added.size ? lower.split(this.special) : [lower];
    const ids = [];
    for (const part of parts) {
      for (const word of this.added.has(part) ? [part] : (part.match(WORDS) ?? [])) {
        ids.push(...(this.added.has(word) ? [this.added.get(word)] : this.#pieces(word)));
        if (ids.length > this.length - 2) return ids;
      }
    }
    return ids;
  }

  #pieces(word) {
    const letters = [...new TextEncoder().encode(word)].map((byte) => LETTERS[byte]);
    letters[letters.length - 1] += "</w>";
    const rank = (n) => this.ranks.get(`${letters[n]} ${letters[n + 1]}`) ?? Infinity;
    // The rank of each piece with the next. They are kept, because looking them up takes most of the time.
    const ranks = letters.map((_, n) => rank(n));
    for (;;) {
      let best = 0;
      for (let n = 1; n < ranks.length; n++) if (ranks[n] < ranks[best]) best = n;
      if (ranks[best] === Infinity) return letters.map((piece) => this.vocab[piece] ?? this.unknown);
      letters.splice(best, 2, letters[best] + letters[best + 1]);
      ranks.splice(best, 2, rank(best));
      if (best > 0) ranks[best - 1] = rank(best - 1);
    }
  }
}

/** The letter that stands for each byte in a byte-level vocabulary: printable ones for themselves. */
const LETTERS = (() => {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let more = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : more++));
})();

/** Text to image from a bundle. */
export class Pipeline {
  /**
   * Open a bundle.
   *
   * @param {object} ort the module `onnxruntime-node` or `onnxruntime-web`.
   * @param {(name: string) => Promise<string>} read reads a text file of the bundle.
   * @param {(name: string, data: string[]) => Promise<object>} session opens a graph of the bundle. `data` are the files
   *   beside it that have weights.
   * @param {{composed?: boolean}} options with `composed`, graphs whose attention consists of standard operators. Some
   *   WebGPU devices compute the fused one wrongly.
   */
  static async open(ort, read, session, { composed = false } = {}) {
    const plan = JSON.parse(await read("plan.json"));
    if (plan.version !== 1) throw new Error(`plan.json has version ${plan.version}: expected 1`);
    const made = new Pipeline();
    const tokenizer = new Tokenizer(JSON.parse(await read(plan.tokenizer.file)), plan.tokenizer);
    Object.assign(made, { ort, plan, tokenizer, sessions: {} });
    for (const part of ["text_encoder", "unet", "step", "vae_decoder"]) {
      made.sessions[part] = await session((composed && plan[part].composed) || plan[part].graph, plan[part].data);
    }
    return made;
  }

  /**
   * Make an image. `onStep(done, all)` is called after each step. With an `AbortSignal`, the call ends between two steps.
   *
   * @returns {Promise<{width: number, height: number, data: Uint8ClampedArray}>} pixels as RGBA.
   */
  async generate(prompt, { seed = 0, negativePrompt = "", guidanceScale, onStep, signal } = {}) {
    const { plan, sessions } = this;
    if (!sessions.unet) throw new Error("this pipeline was released: open the bundle again");
    const guided = plan.guidance_scale !== null;
    if (guidanceScale !== undefined && !guided) throw new TypeError("this bundle has no guidance: leave out guidanceScale");
    const scale = guidanceScale ?? plan.guidance_scale;
    for (const [name, value, kind] of [["prompt", prompt, "string"], ["negativePrompt", negativePrompt, "string"]]) {
      if (typeof value !== kind) throw new TypeError(`${name} is ${value}: expected a ${kind}`);
    }
    if (guided && !(Number.isFinite(scale) && Math.abs(scale) <= 10_000)) {
      throw new RangeError(`guidanceScale is ${scale}: expected a number from -10000 to 10000`);
    }
    if (typeof seed !== "bigint" && !Number.isSafeInteger(seed)) {
      throw new TypeError(`seed is ${seed}: expected a whole number, or a BigInt`);
    }
    signal?.throwIfAborted();
    const texts = [];
    for (const text of guided ? [negativePrompt, prompt] : [prompt]) texts.push(await this.#encode(text, sessions));
    const text = this.#joined(texts);
    const generator = new Generator(seed);
    const shape = [1, ...plan.latents];
    const size = shape.reduce((product, one) => product * one);
    const first = generator.randn(size).map((value) => value * Math.fround(plan.initial_scale));
    let latents = this.#floats(first, shape);
    const scaled = this.#floats(first.map((value) => value * Math.fround(plan.first_scale)), shape);
    let sample = guided ? this.#joined([scaled, scaled]) : scaled;
    let history = this.#floats(new Float32Array(plan.step.history * size), [plan.step.history, ...shape]);
    for (const [number, step] of plan.steps.entries()) {
      signal?.throwIfAborted();
      const output = await run(sessions.unet, plan.unet.output, {
        [plan.unet.sample]: sample,
        [plan.unet.timestep]: this.#tensor(plan.unet.timestep_type, [step.timestep], []),
        [plan.unet.text]: text,
      });
      const noise = step.draws_noise ? generator.randn(size) : new Float32Array(size);
      const made = await sessions.step.run({
        latents,
        output,
        history,
        noise: this.#floats(noise, shape),
        factors: this.#floats(Float32Array.from(step.factors), [step.factors.length]),
        ...(guided && { guidance_scale: this.#floats(Float32Array.of(scale), []) }),
      });
      [latents, history, sample] = [made.next_latents, made.next_history, made.next_sample];
      onStep?.(number + 1, plan.steps.length);
    }
    signal?.throwIfAborted();
    return this.#decode(latents, sessions);
  }

  /** Whether the whole prompt is read. The tokens of a longer one are left out at its end. */
  fits(prompt) {
    return this.tokenizer.ids(prompt).length <= this.plan.tokenizer.length - 2;
  }

  async #encode(text, sessions) {
    const { input, input_type: kind, output } = this.plan.text_encoder;
    const ids = this.tokenizer.encode(text);
    return run(sessions.text_encoder, output, { [input]: this.#tensor(kind, ids, [1, ids.length]) });
  }

  /** Free the memory of all graphs. The pipeline cannot be used afterwards. A second call does nothing. */
  async release() {
    const sessions = Object.values(this.sessions);
    this.sessions = {};
    this.released ??= Promise.all(sessions.map((session) => session.release()));
    await this.released;
  }

  async #decode(latents, sessions) {
    const { input, output, factor, shift } = this.plan.vae_decoder;
    const values = await content(latents);
    const scale = Math.fround(this.plan.final_scale * factor);
    const given = this.#floats(values.map((value) => value * scale + Math.fround(shift)), latents.dims);
    const found = await run(sessions.vae_decoder, output, { [input]: given });
    const planes = await content(found);
    const [, , height, width] = found.dims;
    const data = new Uint8ClampedArray(4 * width * height).fill(255);
    for (let pixel = 0; pixel < width * height; pixel++) {
      for (let colour = 0; colour < 3; colour++) {
        // A Uint8ClampedArray rounds halves to even, and clips.
        data[4 * pixel + colour] = (planes[colour * width * height + pixel] / 2 + 0.5) * 255;
      }
    }
    return { width, height, data };
  }

  #floats(values, dims) {
    return new this.ort.Tensor("float32", values, dims);
  }

  #tensor(kind, values, dims) {
    const kinds = { int64: [BigInt64Array, BigInt], int32: [Int32Array, Number], float32: [Float32Array, Number] };
    const [array, convert] = kinds[kind];
    return new this.ort.Tensor(kind, array.from(values, convert), dims);
  }

  /** Tensors of the same shape after one another, along their first axis. */
  #joined(tensors) {
    if (tensors.length === 1) return tensors[0];
    const [{ dims, data }] = tensors;
    const joined = new Float32Array(tensors.length * data.length);
    tensors.forEach((one, n) => joined.set(one.data, n * data.length));
    return this.#floats(joined, [tensors.length * dims[0], ...dims.slice(1)]);
  }
}

async function run(session, output, feeds) {
  return (await session.run(feeds, [output]))[output];
}

/** A tensor's values, which may be on the device. */
async function content(tensor) {
  return tensor.getData ? tensor.getData() : tensor.data;
}
