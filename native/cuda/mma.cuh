/**
 * Tensor cores of compute capability 8.0: products of bfloat16 tiles with float32 sums, the loads that bring tiles into the
 * registers, and asynchronous copies into shared memory. The layouts are those of the PTX manual ("Matrix multiply-accumulate
 * operation using mma instruction", m16n8k16), with lane = 4·g + t, g 0…7, t 0…3:
 *
 *   A [16, 16]  a[0] rows g,     columns 2t, 2t+1      a[1] rows g + 8, columns 2t, 2t+1
 *               a[2] rows g,     columns 2t+8, 2t+9    a[3] rows g + 8, columns 2t+8, 2t+9
 *   B [16, 8]   b[0] rows 2t, 2t+1, column g           b[1] rows 2t+8, 2t+9, column g
 *   C [16, 8]   c[0], c[1] row g, columns 2t, 2t+1     c[2], c[3] row g + 8, columns 2t, 2t+1
 *
 * So the sums of a product become the A of the next one without a move: two C tiles side by side are one A tile.
 */
#pragma once

#include "device.cuh"

namespace memory3 {

/** c += a · b. The emulated one adds in the order of k; that of the tensor cores is not documented. */
__device__ inline void mma16816(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(MEMORY3_EMULATED)
  struct Fragments {
    uint32_t a[4], b[2];
  } own;
  memcpy(own.a, a, sizeof own.a);
  memcpy(own.b, b, sizeof own.b);
  const unsigned char* all = emulator::exchange(kAllLanes, &own, sizeof own);
  const auto of = [&](int lane) {
    Fragments found;
    memcpy(&found, all + 64 * lane, sizeof found);
    return found;
  };
  const int lane = emulator::threadNumber() % kWarpSize, g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) {
    const int row = g + i / 2 * 8, column = 2 * t + i % 2;
    for (int k = 0; k < 16; k++) {
      const uint32_t left = of(row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2];
      const uint32_t right = of(column * 4 + k % 8 / 2).b[k / 8];
      c[i] += (k % 2 == 0 ? lowBf16(left) : highBf16(left)) * (k % 2 == 0 ? lowBf16(right) : highBf16(right));
    }
  }
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

#if defined(MEMORY3_EMULATED)
/** The rows of 16 bytes that all lanes name; lane l names row l % 8 of matrix l / 8. */
__device__ inline void loadMatrices(uint32_t (&into)[4], const void* row, bool transposed) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) abort();
  const unsigned char* all = emulator::exchange(kAllLanes, &row, sizeof row);
  const int lane = emulator::threadNumber() % kWarpSize, g = lane / 4, t = lane % 4;
  for (int matrix = 0; matrix < 4; matrix++) {
    const auto element = [&](int r, int c) {
      const uint16_t* address;
      memcpy(&address, all + 64 * (8 * matrix + r), sizeof address);
      return static_cast<uint32_t>(address[c]);
    };
    into[matrix] = transposed ? element(2 * t, g) | element(2 * t + 1, g) << 16
                              : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
  }
  __syncwarp();
}
#else
__device__ inline uint32_t sharedAddress(const void* address) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(address));
}
#endif

/**
 * Four 8×8 matrices of bfloat16 out of shared memory. Lane l names the address of row l % 8 of matrix l / 8, 16 bytes
 * aligned; r[i] gets of matrix i the elements (g, 2t) and (g, 2t + 1).
 */
__device__ inline void loadMatrix4(uint32_t (&r)[4], const void* row) {
#if defined(MEMORY3_EMULATED)
  loadMatrices(r, row, false);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
#endif
}

/** The same of the transposed matrices: r[i] gets the elements (2t, g) and (2t + 1, g). */
__device__ inline void loadMatrix4Transposed(uint32_t (&r)[4], const void* row) {
#if defined(MEMORY3_EMULATED)
  loadMatrices(r, row, true);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
#endif
}

/**
 * Begins to copy 16 bytes from global to shared memory, both aligned to 16; with `valid` false nothing is read and the
 * bytes become 0 (`from` must be a valid address all the same). They are there after `copyWait` and a barrier.
 */
__device__ inline void copyAsync16(void* shared, const void* from, bool valid = true) {
#if defined(MEMORY3_EMULATED)
  emulator::copyLater(shared, from, valid ? 16 : 0, valid ? 0 : 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(shared)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
#endif
}

/** Ends a group of copies of this thread. */
__device__ inline void copyCommit() {
#if defined(MEMORY3_EMULATED)
  emulator::copyCommit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/** Waits until all groups of this thread but the last `groupsLeft` are there. */
template <int groupsLeft>
__device__ inline void copyWait() {
#if defined(MEMORY3_EMULATED)
  emulator::copyWait(groupsLeft);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(groupsLeft) : "memory");
#endif
}

}  // namespace memory3
