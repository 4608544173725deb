// @ts-check
/**
 * What the plots show: rates out of totals, for the last minutes.
 *
 * Times are the hub's own, so that a snapshot which came late isn't a peak. A hub that began anew
 * counts from zero: its first snapshot has no rate, and leaves a gap.
 */

/**
 * @typedef {object} Sample
 * @property {number} time Unix time in seconds
 * @property {number | null} published events per second
 * @property {number | null} delivered events per second
 * @property {number | null} bytes per second
 * @property {number | null} connections open
 */

/** Seconds that are kept and shown. */
export const WINDOW = 180

const TOTALS = /** @type {const} */ ({
  published: "published",
  delivered: "delivered",
  bytes: "delivered_bytes",
})

export class Rates {
  /** @type {Sample[]} the oldest first */
  samples = []
  /** @type {any} */
  #before = null

  /**
   * Take a snapshot of the hub's statistics; fields may be missing.
   * @param {any} snapshot
   */
  add(snapshot) {
    const before = this.#before
    const isNew = before === null || snapshot.uptime < before.uptime
    const elapsed = isNew ? NaN : snapshot.time - before.time
    if (elapsed <= 0) return
    const sample = { time: snapshot.time, connections: snapshot.server?.connections ?? null }
    for (const [name, total] of Object.entries(TOTALS)) {
      const grown = snapshot.hub?.[total] - before?.hub?.[total]
      Object.assign(sample, { [name]: grown >= 0 ? grown / elapsed || 0 : null })
    }
    if (isNew) Object.assign(sample, { published: null, delivered: null, bytes: null })
    this.#before = snapshot
    const oldest = snapshot.time - WINDOW - 1
    this.samples = [...this.samples.filter(({ time }) => time >= oldest), /** @type {Sample} */ (sample)]
  }
}
