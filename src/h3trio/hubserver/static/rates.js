// @ts-check
/**
 * What the plots show: rates out of totals, for the last minutes.
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
 * @property {number | null} bytes per second
 * @property {number | null} connections open
 */

/** Seconds that are kept and shown. */
export const WINDOW = 180

// Seconds by which the time of a hub's beginning may move, with a clock that is kept right.
const SAME_BEGINNING = 2

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
    const elapsed = snapshot.uptime - before?.uptime
    if (elapsed === 0) return
    const moved = Math.abs(snapshot.time - before?.time - elapsed)
    const isNew = !(elapsed > 0 && moved <= SAME_BEGINNING)
    const sample = { time: snapshot.time, connections: snapshot.server?.connections ?? null }
    for (const [name, total] of Object.entries(TOTALS)) {
      const grown = snapshot.hub?.[total] - before?.hub?.[total]
      Object.assign(sample, { [name]: grown >= 0 ? grown / elapsed || 0 : null })
    }
    if (isNew) Object.assign(sample, { published: null, delivered: null, bytes: null })
    this.#before = snapshot
    const oldest = snapshot.time - WINDOW - 1
    // After a clock was set back, what it had counted beyond has no place in the plot.
    const kept = this.samples.filter(({ time }) => time >= oldest && time < snapshot.time)
    this.samples = [...kept, /** @type {Sample} */ (sample)]
  }
}
