/** Numbers that go to an engine before they are needed, on a way of their own beside the kernels that run. */

import * as tf from './tf.ts';

/** What a backend has that can do so. */
export interface WritesAhead extends tf.KernelBackend {
  /**
   * As `write`, but returns at once and holds nothing up: not JavaScript, and no kernel before the first that uses the
   * tensor. `values` must stay as they are until then.
   */
  writeAhead(values: Int32Array | Float32Array, shape: number[], dtype: tf.DataType): tf.DataId;
}

function backendAhead(): WritesAhead | undefined {
  const backend = tf.backend();
  return 'writeAhead' in backend ? (backend as WritesAhead) : undefined;
}

/** Whether the current engine has such a way; where it has none, `putAhead` would only take the memory earlier. */
export const canPutAhead = (): boolean => backendAhead() !== undefined;

/**
 * A tensor of `values`, which must not change until its first use. It belongs to the caller, also inside `tf.tidy`.
 * @throws UserError device_memory when the memory of the engine is full
 */
export function putAhead(values: Int32Array, shape: number[]): tf.Tensor {
  const backend = backendAhead();
  if (!backend) return tf.keep(tf.tensor(values, shape, 'int32'));
  const dataId = backend.writeAhead(values, shape, 'int32');
  return tf.keep(tf.engine().makeTensorFromDataId(dataId, shape, 'int32', backend));
}
