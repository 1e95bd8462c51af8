/** Which engines bring every fused operation themselves. */

const complete = new Set<string>();

/** Says of a tfjs backend that it has a kernel for each operation of `src/ops`. */
export function declareComplete(backendName: string): void {
  complete.add(backendName);
}

/** Whether an operation without a kernel on this backend is a fault, not a reason to run its composition. */
export function isComplete(backendName: string): boolean {
  return complete.has(backendName);
}
