#include "faiss_index.h"

#include <faiss/AutoTune.h>
#include <faiss/Index2Layer.h>
#include <faiss/IndexFlatCodes.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPQFastScan.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/VectorTransform.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>
#include <faiss/invlists/InvertedLists.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace memory3 {
namespace {

/** The inverted file of an index, below a transform if there is one, or null. */
faiss::IndexIVF* invertedFile(faiss::Index* index) {
  if (auto* transform = dynamic_cast<faiss::IndexPreTransform*>(index)) return invertedFile(transform->index);
  return dynamic_cast<faiss::IndexIVF*>(index);
}

void quiet(faiss::ClusteringParameters& parameters) { parameters.min_points_per_centroid = 1; }

/**
 * Faiss writes a line to the terminal for each clustering of few points, hundreds for one index; and it numbers the
 * centroids of a product quantiser so that codes could be compared bit by bit, which takes long and is not used here.
 */
void prepare(faiss::Index* index) {
  if (auto* map = dynamic_cast<faiss::IndexIDMap*>(index)) prepare(map->index);
  if (auto* transform = dynamic_cast<faiss::IndexPreTransform*>(index)) prepare(transform->index);
  if (auto* refine = dynamic_cast<faiss::IndexRefine*>(index)) prepare(refine->base_index);
  if (auto* graph = dynamic_cast<faiss::IndexHNSW*>(index)) prepare(graph->storage);
  if (auto* multi = dynamic_cast<faiss::MultiIndexQuantizer*>(index)) quiet(multi->pq.cp);
  if (auto* file = dynamic_cast<faiss::IndexIVF*>(index)) quiet(file->cp);
  if (auto* codes = dynamic_cast<faiss::IndexPQ*>(index)) {
    quiet(codes->pq.cp);
    codes->do_polysemous_training = false;
  }
  if (auto* file = dynamic_cast<faiss::IndexIVFPQ*>(index)) {
    quiet(file->pq.cp);
    file->do_polysemous_training = false;
  }
  if (auto* codes = dynamic_cast<faiss::IndexPQFastScan*>(index)) quiet(codes->pq.cp);
  if (auto* file = dynamic_cast<faiss::IndexIVFPQFastScan*>(index)) quiet(file->pq.cp);
  if (auto* codes = dynamic_cast<faiss::Index2Layer*>(index)) {
    quiet(codes->q1.cp);
    prepare(codes->q1.quantizer);
    quiet(codes->pq.cp);
  }
}

/** While it lives, the rotations of an index are trained with quantisers of their usual kind that are quiet. */
class QuietRotations {
 public:
  explicit QuietRotations(faiss::Index* index) {
    if (auto* map = dynamic_cast<faiss::IndexIDMap*>(index)) index = map->index;
    auto* transform = dynamic_cast<faiss::IndexPreTransform*>(index);
    if (transform == nullptr) return;
    for (faiss::VectorTransform* each : transform->chain) {
      auto* rotation = dynamic_cast<faiss::OPQMatrix*>(each);
      if (rotation == nullptr || rotation->pq != nullptr) continue;
      quantisers_.push_back(std::make_unique<faiss::ProductQuantizer>(rotation->d_out, rotation->M, 8));
      quiet(quantisers_.back()->cp);
      rotation->pq = quantisers_.back().get();
      rotations_.push_back(rotation);
    }
  }
  ~QuietRotations() {
    for (faiss::OPQMatrix* rotation : rotations_) rotation->pq = nullptr;
  }
  QuietRotations(const QuietRotations&) = delete;
  QuietRotations& operator=(const QuietRotations&) = delete;

 private:
  std::vector<std::unique_ptr<faiss::ProductQuantizer>> quantisers_;
  std::vector<faiss::OPQMatrix*> rotations_;
};

template <class T>
int64_t bytesOf(const std::vector<T>& values) {
  return static_cast<int64_t>(values.capacity() * sizeof(T));
}

int64_t listBytes(const faiss::InvertedLists* lists) {
  const auto* inMemory = dynamic_cast<const faiss::ArrayInvertedLists*>(lists);
  if (inMemory == nullptr) return 0;
  int64_t bytes = 0;
  for (const auto& codes : inMemory->codes) bytes += bytesOf(codes);
  for (const auto& ids : inMemory->ids) bytes += bytesOf(ids);
  return bytes;
}

int64_t memoryBytes(const faiss::Index* index) {
  if (const auto* map = dynamic_cast<const faiss::IndexIDMap2*>(index)) {
    // A node of the hash table: key, value, next, and its bucket.
    return bytesOf(map->id_map) + static_cast<int64_t>(map->rev_map.size()) * 32 + memoryBytes(map->index);
  }
  if (const auto* map = dynamic_cast<const faiss::IndexIDMap*>(index)) {
    return bytesOf(map->id_map) + memoryBytes(map->index);
  }
  if (const auto* transform = dynamic_cast<const faiss::IndexPreTransform*>(index)) {
    return static_cast<int64_t>(transform->d) * transform->index->d * 4 + memoryBytes(transform->index);
  }
  if (const auto* refine = dynamic_cast<const faiss::IndexRefine*>(index)) {
    return memoryBytes(refine->base_index) + memoryBytes(refine->refine_index);
  }
  if (const auto* graph = dynamic_cast<const faiss::IndexHNSW*>(index)) {
    const faiss::HNSW& links = graph->hnsw;
    return bytesOf(links.neighbors) + bytesOf(links.offsets) + bytesOf(links.levels) + memoryBytes(graph->storage);
  }
  if (const auto* file = dynamic_cast<const faiss::IndexIVF*>(index)) {
    return memoryBytes(file->quantizer) + listBytes(file->invlists) +
           static_cast<int64_t>(file->direct_map.hashtable.size()) * 32;
  }
  if (const auto* flat = dynamic_cast<const faiss::IndexFlatCodes*>(index)) return bytesOf(flat->codes);
  return 0;
}

int64_t codeBytes(const faiss::Index& index) {
  try {
    return static_cast<int64_t>(index.sa_code_size());
  } catch (const faiss::FaissException&) {
    return 0;
  }
}

void widen(std::pair<int64_t, int64_t>& range, const int64_t* ids, std::size_t count) {
  for (std::size_t i = 0; i < count; i++) {
    range.first = range.first < 0 ? ids[i] : std::min(range.first, ids[i]);
    range.second = std::max(range.second, ids[i]);
  }
}

}  // namespace

FaissIndex::FaissIndex() = default;
FaissIndex::~FaissIndex() = default;

faiss::Index& FaissIndex::index() const {
  if (index_ == nullptr) throw std::runtime_error("the index is closed");
  return *index_;
}

void FaissIndex::requireWritable() const {
  if (readOnly_) throw std::runtime_error("the index is mapped from a file and cannot be changed");
}

void FaissIndex::take(faiss::Index* index, bool readOnly) {
  index_.reset(index);
  readOnly_ = readOnly;
}

void FaissIndex::make(int64_t dimensions, const std::string& factory, bool innerProduct, bool ids) {
  if (dimensions < 1 || dimensions > std::numeric_limits<int>::max()) {
    throw std::invalid_argument("the number of dimensions must be at least 1");
  }
  const faiss::MetricType metric = innerProduct ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2;
  std::unique_ptr<faiss::Index> made(
      faiss::index_factory(static_cast<int>(dimensions), factory.c_str(), metric));
  const bool keepsIds = invertedFile(made.get()) != nullptr || dynamic_cast<faiss::IndexIDMap*>(made.get()) != nullptr;
  if (ids && !keepsIds) {
    auto* map = new faiss::IndexIDMap2(made.get());
    map->own_fields = true;
    made.release();
    made.reset(map);
  }
  prepare(made.get());
  take(made.release(), false);
}

void FaissIndex::read(const std::string& path, bool map) {
  take(faiss::read_index(path.c_str(), map ? faiss::IO_FLAG_MMAP : 0), map);
}

void FaissIndex::restore(const uint8_t* bytes, int64_t size) {
  faiss::VectorIOReader reader;
  reader.data.assign(bytes, bytes + size);
  take(faiss::read_index(&reader), false);
}

void FaissIndex::write(const std::string& path) const { faiss::write_index(&index(), path.c_str()); }

std::vector<uint8_t> FaissIndex::bytes() const {
  faiss::VectorIOWriter writer;
  faiss::write_index(&index(), &writer);
  return std::move(writer.data);
}

void FaissIndex::free() { index_.reset(); }

FaissFacts FaissIndex::facts() const {
  if (index_ == nullptr) return {};
  return {index_->d, index_->ntotal, index_->is_trained, codeBytes(*index_), memory3::memoryBytes(index_.get())};
}

void FaissIndex::train(const float* x, int64_t count) {
  requireWritable();
  const QuietRotations rotations(&index());
  index().train(count, x);
}

void FaissIndex::add(const float* x, const int64_t* ids, int64_t count) {
  requireWritable();
  if (std::any_of(ids, ids + count, [](int64_t id) { return id < 0; })) {
    throw std::invalid_argument("ids must be at least 0");
  }
  if (!index().is_trained) throw std::runtime_error("the index must be trained before vectors are added");
  index().add_with_ids(count, x, ids);
}

void FaissIndex::search(const float* x, int64_t count, int64_t k, int64_t* ids, float* scores) const {
  if (!index().is_trained) throw std::runtime_error("the index must be trained before it is searched");
  if (index().ntotal == 0) {
    // Faiss 1.7.3 reads beyond an index without vectors when many queries are asked at once.
    const float worst = std::numeric_limits<float>::infinity();
    std::fill(ids, ids + count * k, int64_t{-1});
    std::fill(scores, scores + count * k, index().metric_type == faiss::METRIC_INNER_PRODUCT ? -worst : worst);
    return;
  }
  index().search(count, x, k, scores, ids);
}

FaissRanges FaissIndex::searchRange(const float* x, int64_t count, float radius) const {
  faiss::RangeSearchResult found(static_cast<std::size_t>(count));
  index().range_search(count, x, radius, &found);
  const std::size_t total = found.lims[count];
  FaissRanges ranges;
  ranges.limits.assign(found.lims, found.lims + count + 1);
  if (total > 0) {
    ranges.ids.assign(found.labels, found.labels + total);
    ranges.scores.assign(found.distances, found.distances + total);
  }
  return ranges;
}

int64_t FaissIndex::remove(const int64_t* ids, int64_t count) {
  requireWritable();
  const faiss::IndexIVF* file = invertedFile(&index());
  if (file != nullptr && file->direct_map.type == faiss::DirectMap::Hashtable) {
    return static_cast<int64_t>(index().remove_ids(faiss::IDSelectorArray(static_cast<std::size_t>(count), ids)));
  }
  return static_cast<int64_t>(index().remove_ids(faiss::IDSelectorBatch(static_cast<std::size_t>(count), ids)));
}

void FaissIndex::reconstruct(const int64_t* ids, int64_t count, float* out) {
  faiss::IndexIVF* file = invertedFile(&index());
  // Made when it is first asked for: it costs about 32 bytes a vector.
  if (file != nullptr && file->direct_map.no()) file->set_direct_map_type(faiss::DirectMap::Hashtable);
  for (int64_t i = 0; i < count; i++) index().reconstruct(ids[i], out + i * index().d);
}

std::pair<int64_t, int64_t> FaissIndex::idRange() const {
  std::pair<int64_t, int64_t> range{-1, -1};
  if (const auto* map = dynamic_cast<const faiss::IndexIDMap*>(&index())) {
    widen(range, map->id_map.data(), map->id_map.size());
  } else if (const faiss::IndexIVF* file = invertedFile(&index())) {
    for (std::size_t list = 0; list < file->nlist; list++) {
      faiss::InvertedLists::ScopedIds ids(file->invlists, list);
      widen(range, ids.get(), file->get_list_size(list));
    }
  }
  return range;
}

void FaissIndex::set(const std::string& name, double value) {
  faiss::ParameterSpace().set_index_parameter(&index(), name, value);
}

void FaissIndex::encode(const float* x, int64_t count, uint8_t* codes) const {
  if (!index().is_trained) throw std::runtime_error("the codec must be trained before it encodes");
  index().sa_encode(count, x, codes);
}

void FaissIndex::decode(const uint8_t* codes, int64_t count, float* out) const {
  if (!index().is_trained) throw std::runtime_error("the codec must be trained before it decodes");
  index().sa_decode(count, codes, out);
}

}  // namespace memory3
