// @ts-check
/**
 * One small plot: a line with its area, against time, in SVG.
 *
 * The scale is that of the window's highest value, rounded up to 1, 2, 3 or 5 times a power of ten,
 * so that it seldom moves. It is marked at each minute. Under the pointer the number above is that of
 * the past.
 */
import { NOTHING } from "./format.js"
import { WINDOW } from "./rates.js"

/** @typedef {import("./rates.js").Sample} Sample */

const SVG = "http://www.w3.org/2000/svg"
const [WIDTH, HEIGHT] = [WINDOW, 100]
// Longer without a sample, and the line is broken.
const GAP = 3.5
const MINUTES = Array.from({ length: WIDTH / 60 + 1 }, (_, n) => `M${60 * n} 0V${HEIGHT}`).join("")

export class Plot {
  #format
  #key
  #value
  #when
  #top
  #area
  #line
  #cursor
  #svg
  /** @type {Sample[]} */
  #samples = []
  /** @type {number | null} where the pointer is: 0 on the left, 1 on the right */
  #pointer = null

  /**
   * @param {HTMLElement} figure with a `data-key`, the name of its field in a sample
   * @param {(value: number | null) => string} format
   */
  constructor(figure, format) {
    this.#format = format
    this.#key = /** @type {"published" | "delivered" | "delivered_bytes" | "subscribers"} */ (figure.dataset.key)
    this.#value = find(figure, ".value")
    this.#when = find(figure, ".when")
    this.#top = find(figure, ".top")
    const plot = find(figure, ".plot")
    this.#svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" })
    this.#area = shape("path", { class: "area" })
    this.#line = shape("path", { class: "line" })
    this.#cursor = shape("path", { class: "cursor" })
    this.#svg.append(shape("path", { class: "minutes", d: MINUTES }), this.#area, this.#line, this.#cursor)
    plot.prepend(this.#svg)
    plot.addEventListener("pointermove", (move) => {
      const box = plot.getBoundingClientRect()
      this.#pointer = (move.clientX - box.left) / box.width
      this.#tell()
    })
    plot.addEventListener("pointerleave", () => {
      this.#pointer = null
      this.#tell()
    })
  }

  /** @param {Sample[]} samples the oldest first, the last one of now */
  draw(samples) {
    this.#samples = samples
    const known = samples.flatMap((sample) => sample[this.#key] ?? [])
    const top = niceTop(Math.max(0, ...known))
    const { line, area } = paths(samples, this.#key, top)
    this.#line.setAttribute("d", line)
    this.#area.setAttribute("d", area)
    this.#top.textContent = known.length ? this.#format(top) : ""
    this.#tell()
  }

  /** Say the number of now, or of where the pointer is. */
  #tell() {
    const now = this.#samples.at(-1)
    const shown = this.#pointer === null || !now ? now : nearest(this.#samples, now.time - WINDOW * (1 - this.#pointer))
    const ago = now && shown ? Math.round(now.time - shown.time) : 0
    this.#value.textContent = shown ? this.#format(shown[this.#key]) : NOTHING
    this.#when.textContent = ago ? `${ago} s ago` : ""
    const at = this.#pointer === null || !now || !shown ? null : WIDTH - (now.time - shown.time)
    this.#cursor.setAttribute("d", at === null ? "" : `M${at} 0V${HEIGHT}`)
    const highest = this.#top.textContent || NOTHING
    this.#svg.setAttribute("aria-label", `The last ${WINDOW / 60} minutes, on a scale up to ${highest}`)
  }
}

/**
 * @param {Sample[]} samples
 * @param {"published" | "delivered" | "delivered_bytes" | "subscribers"} key
 * @param {number} top the value at the upper edge
 */
function paths(samples, key, top) {
  const now = samples.at(-1)?.time ?? 0
  /** @type {[number, number][][]} */
  const runs = []
  let before = -Infinity
  for (const sample of samples) {
    const value = sample[key]
    if (value === null) {
      before = -Infinity
      continue
    }
    if (sample.time - before > GAP) runs.push([])
    before = sample.time
    runs.at(-1)?.push([round(WIDTH - (now - sample.time)), round(HEIGHT - (value / top) * (HEIGHT - 2))])
  }
  const lines = runs.map((run) => `M${run.map((point) => point.join(" ")).join("L")}`)
  const areas = runs.map((run, n) => `${lines[n]}V${HEIGHT}H${run[0][0]}Z`)
  return { line: lines.join(""), area: areas.join("") }
}

/** @param {number} highest */
export function niceTop(highest) {
  if (highest <= 1) return 1
  const power = 10 ** Math.floor(Math.log10(highest))
  return power * (/** @type {number} */ ([1, 2, 3, 5, 10].find((step) => step * power >= highest)))
}

/**
 * @param {Sample[]} samples
 * @param {number} time
 */
function nearest(samples, time) {
  return samples.reduce((best, sample) =>
    Math.abs(sample.time - time) < Math.abs(best.time - time) ? sample : best,
  )
}

const round = (/** @type {number} */ value) => Math.round(value * 10) / 10

/**
 * @param {HTMLElement} inside
 * @param {string} selector
 */
function find(inside, selector) {
  return /** @type {HTMLElement} */ (inside.querySelector(selector))
}

/**
 * @param {string} name
 * @param {Record<string, string>} attributes
 */
function shape(name, attributes) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}
