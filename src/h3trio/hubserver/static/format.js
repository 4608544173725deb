// @ts-check
/** Numbers as people read them, each at most about seven characters wide. */

const WHOLE = new Intl.NumberFormat("en")
const ONE_DIGIT = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 })
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"]

/** What stands where the hub said nothing. */
export const NOTHING = "–"

/** @typedef {number | null | undefined} Maybe */

/** @param {Maybe} value something counted */
export function count(value) {
  if (value == null) return NOTHING
  return value < 1e6 ? WHOLE.format(value) : SHORT.format(value)
}

/**
 * @param {Maybe} value
 * @param {string} noun of which there are so many; its plural ends in s
 */
export function some(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`
}

/** @param {Maybe} value something per second */
export function rate(value) {
  if (value == null) return NOTHING
  if (value < 10) return ONE_DIGIT.format(value)
  return value < 1e5 ? WHOLE.format(Math.round(value)) : SHORT.format(value)
}

/** @param {Maybe} value bytes, in powers of 1000 */
export function bytes(value) {
  if (value == null) return NOTHING
  let [size, unit] = [value, 0]
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000
    unit += 1
  }
  const digits = unit > 0 && size < 99.5 ? ONE_DIGIT.format(size) : WHOLE.format(Math.round(size))
  return `${digits} ${UNITS[unit]}`
}

/** @param {Maybe} seconds a long time, in its two largest units */
export function duration(seconds) {
  if (seconds == null) return NOTHING
  const [s, m, h] = [seconds, seconds / 60, seconds / 3600].map((value) => Math.floor(Math.max(0, value)))
  if (s < 60) return `${s} s`
  if (m < 60) return `${m} min ${s % 60} s`
  if (h < 24) return `${h} h ${m % 60} min`
  return `${Math.floor(h / 24)} d ${h % 24} h`
}

/** @param {Maybe} seconds a short time */
export function latency(seconds) {
  if (seconds == null) return NOTHING
  const unit = seconds < 0.001 ? "µs" : seconds < 1 ? "ms" : "s"
  const value = seconds * { "µs": 1e6, ms: 1e3, s: 1 }[unit]
  return `${value < 10 ? ONE_DIGIT.format(value) : Math.round(value)} ${unit}`
}

/**
 * A moment, with its day unless that is today.
 * @param {Date} date
 * @param {Date} now
 */
export function moment(date, now) {
  const clock = date.toTimeString().slice(0, 8)
  if (date.toDateString() === now.toDateString()) return clock
  const [year, month, day] = [date.getFullYear(), date.getMonth() + 1, date.getDate()]
  return `${[year, month, day].map((part) => String(part).padStart(2, "0")).join("-")} ${clock}`
}
