/**
 * A Faiss index of any kind behind one interface: made from a factory string, or read from a file or from bytes. Needs
 * Faiss 1.7.3. Calls on one index must not overlap; what Faiss throws comes through as it is.
 */
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace faiss {
struct Index;
}

namespace memory3 {

/** What can be said about an index without touching its vectors. */
struct FaissFacts {
  int64_t dimensions = 0;
  int64_t size = 0;
  bool trained = false;
  /** Bytes of one vector in the standalone codec; 0 for indexes that are none. */
  int64_t codeBytes = 0;
  /** Bytes in memory, about; inverted lists that are mapped from a file do not count. */
  int64_t memoryBytes = 0;
};

/** Results of a range search: those of query q are [limits[q], limits[q + 1]). */
struct FaissRanges {
  std::vector<int64_t> limits;
  std::vector<int64_t> ids;
  std::vector<float> scores;
};

class FaissIndex {
 public:
  FaissIndex();
  ~FaissIndex();

  /** @param ids whether vectors get ids; a codec only encodes and needs none */
  void make(int64_t dimensions, const std::string& factory, bool innerProduct, bool ids);
  /** @param map leave inverted lists in the file and map it; the index can then only be searched */
  void read(const std::string& path, bool map);
  void restore(const uint8_t* bytes, int64_t size);
  void write(const std::string& path) const;
  std::vector<uint8_t> bytes() const;
  void free();
  FaissFacts facts() const;

  void train(const float* x, int64_t count);
  /** Ids must be at least 0: −1 stands for "none" in results. */
  void add(const float* x, const int64_t* ids, int64_t count);
  /** ids, scores: [count, k]; −1 beside ±infinity where fewer are found. */
  void search(const float* x, int64_t count, int64_t k, int64_t* ids, float* scores) const;
  FaissRanges searchRange(const float* x, int64_t count, float radius) const;
  /** @returns how many were there */
  int64_t remove(const int64_t* ids, int64_t count);
  void reconstruct(const int64_t* ids, int64_t count, float* out);
  /** The least and the greatest id; of an empty index −1 and −1. */
  std::pair<int64_t, int64_t> idRange() const;
  /** A search parameter such as nprobe or efSearch, wherever it lies below maps of ids and transforms. */
  void set(const std::string& name, double value);

  void encode(const float* x, int64_t count, uint8_t* codes) const;
  void decode(const uint8_t* codes, int64_t count, float* out) const;

 private:
  std::unique_ptr<faiss::Index> index_;
  bool readOnly_ = false;

  faiss::Index& index() const;
  void requireWritable() const;
  void take(faiss::Index* index, bool readOnly);
};

}  // namespace memory3
