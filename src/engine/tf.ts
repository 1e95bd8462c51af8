/**
 * The one place that loads TensorFlow.js: the union package, since core alone registers neither gradients nor a
 * backend under Node.
 */
export * from '@tensorflow/tfjs';
