// SPDX-License-Identifier: Apache-2.0
#include "core/nn/sequence.h"

namespace blockstate::nn {

Sequence make_sequence(const Tensor& position, const Tensor& record, int64_t records, int64_t offset, Device device) {
  require(position.rank() == 2 && position.shape() == record.shape(), "sequence: position ",
          shape_text(position.shape()), " and record ", shape_text(record.shape()), " must both be (B, L)");
  Sequence sequence;
  sequence.host_position = position.packed();
  sequence.host_record = record.packed();
  sequence.records = records;
  sequence.offset = offset;
  const int64_t B = position.size(0), L = position.size(1);
  Tensor ends = Tensor::empty({B}, DType::kInt64);
  Tensor known = Tensor::empty({B}, DType::kInt64);
  for (int64_t b = 0; b < B; ++b) {
    const int64_t* row = sequence.host_position.data<int64_t>() + b * L;
    int64_t end = L;
    while (end > 0 && row[end - 1] < 0) {
      --end;
    }
    ends.data<int64_t>()[b] = end;
    // A row without a valid step hands on what it had.
    known.data<int64_t>()[b] = end > 0 ? row[end - 1] + 1 : INT64_MAX;
    for (int64_t t = 0; t < L; ++t) {
      sequence.uniform = sequence.uniform && row[t] == offset + t;
    }
  }
  sequence.position = sequence.host_position.to(device);
  sequence.record = sequence.host_record.to(device);
  sequence.end = ends.to(device);
  sequence.known = known.to(device);
  return sequence;
}

Sequence plain_sequence(int64_t batch, int64_t length, int64_t offset, Device device) {
  Tensor position = Tensor::empty({batch, length}, DType::kInt64);
  Tensor record = Tensor::empty({batch, length}, DType::kInt64);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < length; ++t) {
      position.data<int64_t>()[b * length + t] = offset + t;
      record.data<int64_t>()[b * length + t] = b;
    }
  }
  return make_sequence(position, record, batch, offset, device);
}

Sequence Sequence::slice(int64_t begin, int64_t stop, Device device) const {
  Sequence part = make_sequence(host_position.slice(1, begin, stop), host_record.slice(1, begin, stop), records,
                                offset + begin, device);
  part.training = training;
  part.random_key = random_key;
  return part;
}

Sequence Sequence::first(int64_t steps) const {
  if (!uniform) {
    return slice(0, steps);
  }
  Sequence part = *this;
  for (Tensor* tensor : {&part.position, &part.record, &part.host_position, &part.host_record}) {
    *tensor = tensor->slice(1, 0, steps).packed();
  }
  part.end = part.known = Tensor();
  return part;
}

}  // namespace blockstate::nn
