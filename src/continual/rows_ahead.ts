/**
 * The rows of the micro-batch to come, on their way to the engine while the one before computes. Only what is known ahead
 * can be sent, and only an engine that has a way beside its kernels gets anything: the others take rows in their step.
 */

import { canPutAhead, putAhead } from '../engine/ahead.ts';
import type * as tf from '../engine/tf.ts';
import { rowsShape, rowsTensor } from '../memory/reading.ts';
import type { StepMemories } from '../memory/step_memories.ts';
import type { Reading } from './batch_reader.ts';

/** Holds the rows of one micro-batch at most. */
export class RowsAhead {
  private awaited: Promise<Reading> | undefined;
  private sent: { step: StepMemories; rows: tf.Tensor2D } | undefined;

  /** Sends the rows of a reading as soon as it is there; drops what was sent before and not taken. */
  send(reading: Promise<Reading> | undefined): void {
    this.drop();
    if (reading === undefined || !canPutAhead()) return;
    this.awaited = reading;
    // A reading that fails is reported in its step, and there rows that found no room are put once more.
    this.sendWhenThere(reading).catch(() => undefined);
  }

  /** The rows of a micro-batch on the engine, those that were sent if they are these; they belong to the caller. */
  take(step: StepMemories): tf.Tensor2D {
    const { sent } = this;
    if (sent?.step !== step) {
      this.drop();
      return rowsTensor(step);
    }
    this.awaited = undefined;
    this.sent = undefined;
    return sent.rows;
  }

  /** Gives up what was sent and what is still to be. */
  drop(): void {
    this.awaited = undefined;
    this.sent?.rows.dispose();
    this.sent = undefined;
  }

  private async sendWhenThere(reading: Promise<Reading>): Promise<void> {
    const { stored } = await reading;
    if (this.awaited !== reading || stored === undefined) return;
    this.sent = { step: stored, rows: putAhead(stored.rows, rowsShape(stored)) as tf.Tensor2D };
  }
}
