/** All kernels of the engines that have C++ of their own. */

import './fused_kernels.ts';
import './plain_kernels.ts';

export { registerKernels } from './register.ts';
