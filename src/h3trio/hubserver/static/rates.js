// @ts-check
/**
 * What the plots show: rates out of totals, for the last minutes. The hub gives those of the time
 * before the page was there.
 *
 * Times are the hub's own, so that a snapshot which came late isn't a peak. A hub that began anew
 * counts from zero: its first snapshot has no rate, and leaves a gap. So does one whose clock was
 * set. Between two snapshots counts `uptime`, which no setting of a clock moves.
 */

/**
 * @typedef {object} Sample
 * @property {number} time Unix time in seconds
 * @property {number | null} published events per second
 * @property {number | null} delivered events per second
 * @property {number | null} delivered_bytes per second
 * @property {number | null} subscribers now
 */

/** Seconds that are kept and shown. */
export const WINDOW = 180

// Seconds by which the time of a hub's beginning may move, with a clock that is kept right.
const SAME_BEGINNING = 2

const TOTALS = /** @type {const} */ (["published", "delivered", "delivered_bytes"])

export class Rates {
  /** @type {Sample[]} the oldest first */
  samples = []
  /** @type {any} */
  #before = null

  /**
   * Take the samples that the hub kept: where they begin, what was here before ends.
   * @param {{ fields: string[], samples: number[][] }} kept
   */
  fill({ fields, samples }) {
    for (const values of samples) this.add(Object.fromEntries(fields.map((name, n) => [name, values[n]])))
  }

  /**
   * Take the hub's counts of one moment, the `time` and the `uptime` among them; others may be missing.
   * @param {any} counts
   */
  add(counts) {
    const before = this.#before
    const elapsed = counts.uptime - before?.uptime
    if (elapsed === 0) return
    const moved = Math.abs(counts.time - before?.time - elapsed)
    const isNew = !(elapsed > 0 && moved <= SAME_BEGINNING)
    const sample = { time: counts.time, subscribers: counts.subscribers ?? null }
    for (const name of TOTALS) {
      const grown = counts[name] - before?.[name]
      Object.assign(sample, { [name]: !isNew && grown >= 0 ? grown / elapsed || 0 : null })
    }
    this.#before = counts
    const oldest = counts.time - WINDOW - 1
    // After a clock was set back, what it had counted beyond has no place in the plot.
    const kept = this.samples.filter(({ time }) => time >= oldest && time < counts.time)
    this.samples = [...kept, /** @type {Sample} */ (sample)]
  }
}
