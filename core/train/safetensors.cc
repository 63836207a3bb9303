// SPDX-License-Identifier: Apache-2.0
#include "core/train/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/config/nearest.h"
#include "core/config/value.h"
#include "core/train/durable_file.h"

namespace blockstate::train {
namespace {

using config::Value;
static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr int64_t kLargestHeader = 100'000'000;  // the reference reader's limit
constexpr int64_t kLengthBytes = 8;

struct TypeName {
  std::string_view name;
  int64_t width;
  std::optional<DType> dtype;  ///< none: can be listed, not read
};

constexpr TypeName kTypes[] = {
    {"F64", 8, DType::kFloat64}, {"F32", 4, DType::kFloat32},  {"BF16", 2, DType::kBFloat16},
    {"I64", 8, DType::kInt64},   {"I32", 4, DType::kInt32},    {"U8", 1, DType::kUInt8},
    {"F16", 2, std::nullopt},    {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt},
    {"I16", 2, std::nullopt},    {"I8", 1, std::nullopt},      {"U64", 8, std::nullopt},
    {"U32", 4, std::nullopt},    {"U16", 2, std::nullopt},     {"BOOL", 1, std::nullopt},
};

const TypeName* type_named(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.name == name; });
  return found == std::end(kTypes) ? nullptr : found;
}

std::string_view type_of(DType dtype) {
  return std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.dtype == dtype; })->name;
}

/// The member `key` of a tensor's entry, of the wanted kind.
const Value& member(const Value& entry, std::string_view key, Value::Kind kind, std::string_view wanted,
                    const std::string& where) {
  const Value* found = entry.find(key);
  require(found != nullptr, where, "has no ", key);
  require(found->is(kind), where, "its ", key, " is ", found->describe(), ", wanted ", wanted);
  return *found;
}

std::vector<int64_t> integers(const Value& list, std::string_view key, const std::string& where) {
  std::vector<int64_t> numbers;
  for (const Value& element : list.array()) {
    require(element.is(Value::Kind::kInteger) && element.integer() >= 0, where, "its ", key, " holds ",
            element.describe(), ", wanted integers of at least 0");
    numbers.push_back(element.integer());
  }
  return numbers;
}

/// Bytes of a tensor. Error where they do not fit in 64 bits.
int64_t byte_count(const Shape& shape, int64_t width, const std::string& where) {
  int64_t bytes = width;
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  for (const int64_t size : shape) {
    require(empty || !__builtin_mul_overflow(bytes, size, &bytes), where, "its shape ", shape_text(shape),
            " does not fit in memory");
  }
  return empty ? 0 : bytes;
}

TextMap read_metadata(const Value& table, const std::string& file) {
  TextMap metadata;
  require(table.is(Value::Kind::kTable), file, ": __metadata__ is ", table.describe(), ", wanted a table of strings");
  for (const Value::Entry& entry : table.table()) {
    require(entry.value.is(Value::Kind::kString), file, ": the metadata \"", entry.key, "\" is ",
            entry.value.describe(), ", wanted a string");
    metadata[entry.key] = entry.value.text();
  }
  return metadata;
}

/// The data section must be covered by the tensors, each byte once.
void check_cover(const std::map<std::string, SafetensorsFile::Entry>& entries, int64_t data_begin, int64_t file_size,
                 const std::string& file) {
  using Named = std::pair<const std::string, SafetensorsFile::Entry>;
  std::vector<const Named*> order;
  for (const Named& named : entries) {
    order.push_back(&named);
  }
  std::stable_sort(order.begin(), order.end(), [](const Named* a, const Named* b) {
    return std::pair(a->second.begin, a->second.bytes) < std::pair(b->second.begin, b->second.bytes);
  });
  int64_t end = data_begin;
  const Named* previous = nullptr;
  for (const Named* named : order) {
    const int64_t begin = named->second.begin;
    require(begin >= end, file, ": the tensors \"", previous == nullptr ? "" : previous->first, "\" and \"",
            named->first, "\" overlap");
    require(begin == end, file, ": ", begin - end, " bytes before the tensor \"", named->first,
            "\" belong to no tensor");
    end = begin + named->second.bytes;
    previous = named;
  }
  require(end == file_size, file, ": is ", file_size, " bytes long, its header wants ", end);
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors, const TextMap& metadata) {
  // Wide elements first, so that every tensor begins at a multiple of its element's size.
  std::vector<std::pair<std::string, Tensor>> order(tensors.begin(), tensors.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return dtype_size(a.second.dtype()) > dtype_size(b.second.dtype());
  });
  Value header;
  if (!metadata.empty()) {
    Value& table = header.set("__metadata__", Value());
    for (const auto& [key, text] : metadata) {
      table.set(key, Value(text));
    }
  }
  int64_t offset = 0;
  for (auto& [name, tensor] : order) {
    require(name != "__metadata__", path.string(), ": a tensor cannot be called __metadata__");
    tensor = tensor.packed();
    const int64_t bytes = tensor.elements() * dtype_size(tensor.dtype());
    Value::Array shape;
    for (const int64_t size : tensor.shape()) {
      shape.push_back(Value(size));
    }
    Value entry;
    entry.set("dtype", Value(std::string(type_of(tensor.dtype()))));
    entry.set("shape", Value(std::move(shape)));
    entry.set("data_offsets", Value(Value::Array{Value(offset), Value(offset + bytes)}));
    header.set(name, std::move(entry));
    offset += bytes;
  }
  std::string text = config::to_json(header);
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  const uint64_t length = text.size();
  DurableFile file(path);
  file.write(&length, kLengthBytes);
  file.write(text.data(), static_cast<int64_t>(text.size()));
  for (const auto& [name, tensor] : order) {
    const Tensor here = tensor.to(Device{});
    file.write(here.bytes(), here.elements() * dtype_size(here.dtype()));
  }
  file.finish();
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  const std::string file = path.string();
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) {
    fail_system(path, "read");
  }
  try {
    struct stat status = {};
    if (::fstat(descriptor_, &status) != 0) {
      fail_system(path, "read");
    }
    require(S_ISREG(status.st_mode), file, ": is no regular file, wanted a safetensors file");
    const int64_t size = status.st_size;
    require(size >= kLengthBytes, file, ": is ", size, " bytes long, too short for a safetensors file");
    uint64_t length = 0;
    read_at(&length, 0, kLengthBytes, "the header");
    require(length <= static_cast<uint64_t>(kLargestHeader), file, ": its header would be ", length,
            " bytes long, wanted at most ", kLargestHeader, "; is this a safetensors file?");
    const int64_t data_begin = kLengthBytes + static_cast<int64_t>(length);
    require(data_begin <= size, file, ": is ", size, " bytes long, its header ends at ", data_begin,
            "; the file is cut short");
    std::string header(static_cast<size_t>(length), '\0');
    read_at(header.data(), kLengthBytes, static_cast<int64_t>(length), "the header");
    parse_header(header, data_begin, size);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { ::close(descriptor_); }

void SafetensorsFile::read_at(void* to, int64_t offset, int64_t bytes, const std::string& what) const {
  constexpr int64_t kMost = int64_t{1} << 30;
  auto* target = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, target, static_cast<size_t>(std::min(bytes, kMost)), offset);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      fail_system(path_, "read " + what);
    }
    require(got > 0, path_.string(), ": became shorter while ", what, " was read");
    target += got;
    offset += got;
    bytes -= got;
  }
}

void SafetensorsFile::parse_header(const std::string& header, int64_t data_begin, int64_t file_size) {
  const std::string file = path_.string();
  const Value root = config::parse_json(header, file);
  require(root.is(Value::Kind::kTable), file, ": its header is ", root.describe(), ", wanted a table");
  int64_t wanted_size = data_begin;
  std::string last;
  for (const Value::Entry& named : root.table()) {
    if (named.key == "__metadata__") {
      metadata_ = read_metadata(named.value, file);
      continue;
    }
    const std::string where = join(file, ": the tensor \"", named.key, "\": ");
    require(named.value.is(Value::Kind::kTable), where, "is described by ", named.value.describe(), ", wanted a table");
    Entry entry;
    entry.dtype = member(named.value, "dtype", Value::Kind::kString, "a string", where).text();
    const TypeName* type = type_named(entry.dtype);
    require(type != nullptr, where, "unknown dtype \"", entry.dtype, "\"");
    entry.shape = integers(member(named.value, "shape", Value::Kind::kArray, "an array", where), "shape", where);
    const std::vector<int64_t> offsets =
        integers(member(named.value, "data_offsets", Value::Kind::kArray, "an array", where), "data_offsets", where);
    require(offsets.size() == 2 && offsets[0] <= offsets[1], where,
            "its data_offsets must be two integers, begin and end");
    const int64_t bytes = byte_count(entry.shape, type->width, where);
    require(offsets[1] - offsets[0] == bytes, where, entry.dtype, " of shape ", shape_text(entry.shape), " takes ",
            bytes, " bytes, its data_offsets give ", offsets[1] - offsets[0]);
    require(offsets[1] <= INT64_MAX - data_begin, where, "its data_offsets do not fit in 64 bits");
    entry.begin = data_begin + offsets[0];
    entry.bytes = bytes;
    if (entry.begin + bytes > wanted_size) {
      wanted_size = entry.begin + bytes;
      last = named.key;
    }
    entries_[named.key] = std::move(entry);
  }
  require(wanted_size <= file_size, file, ": is ", file_size, " bytes long, the tensor \"", last, "\" ends at ",
          wanted_size, "; the file is cut short");
  check_cover(entries_, data_begin, file_size, file);
}

Tensor SafetensorsFile::read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    std::vector<std::string> names;
    for (const auto& [known, entry] : entries_) {
      names.push_back(known);
    }
    const std::string near = config::nearest(name, names);
    fail(path_.string(), ": has no tensor \"", name, "\"", near.empty() ? "" : "; did you mean \"" + near + "\"?");
  }
  const Entry& entry = found->second;
  const TypeName& type = *type_named(entry.dtype);
  require(type.dtype.has_value(), path_.string(), ": the tensor \"", name, "\" is of type ", entry.dtype,
          ", wanted F64, F32, BF16, I64, I32 or U8");
  Tensor tensor = Tensor::empty(entry.shape, *type.dtype);
  read_at(tensor.bytes(), entry.begin, entry.bytes, "the tensor \"" + name + "\"");
  return tensor;
}

NamedTensors SafetensorsFile::read_all() const {
  NamedTensors tensors;
  for (const auto& [name, entry] : entries_) {
    tensors[name] = read(name);
  }
  return tensors;
}

}  // namespace blockstate::train
