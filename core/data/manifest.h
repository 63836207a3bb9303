// SPDX-License-Identifier: Apache-2.0
// TSV manifests: what to read, with which label (docs/user_guide.md).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace blockstate::data {

/// How to read a manifest whose columns have other names, or none.
struct ManifestOptions {
  /// Role -> column name, where they differ. Roles: path, sequence, label, start, end, split, record, name, strand.
  std::map<std::string, std::string> columns;
  /// Column names of a file without a header line; empty: the first line is the header.
  std::vector<std::string> header;
  char separator = '\t';
  /// Keep only rows whose `split` column has this value; empty keeps all.
  std::string split;
  /// The task needs labels: a missing label column or an empty label is an Error.
  bool need_label = false;
};

struct ManifestRow {
  int64_t line = 0;      ///< line in the file, from 1, for messages
  std::string name;      ///< `name` column, else path (with record or interval), else "line N"
  std::string path;      ///< resolved against the manifest's folder; empty where `sequence` is used
  std::string sequence;  ///< bases inline
  std::string label;
  std::string record;           ///< FASTA record (chromosome) of `path`; empty: the only one
  std::string strand;           ///< "+", "-" or empty
  std::string split;            ///< "train", "valid", ...; empty where there is no such column
  std::optional<double> start;  ///< seconds (audio) or 0-based half-open bases (genomes)
  std::optional<double> end;
};

struct Manifest {
  std::string file;
  std::vector<ManifestRow> rows;
};

/// Reads a manifest, plain or gzip, with LF or CRLF line ends; blank lines and lines starting with '#' before the
/// header are skipped. Errors name file, line and column, wanted and found: no such file, a directory, empty file,
/// neither `path` nor `sequence` column (lists the columns found), too few fields in a line, a start that is no
/// number, end before start, no row left after `split`, a file cut short inside its gzip stream.
Manifest read_manifest(const std::string& file, const ManifestOptions& options);

/// Sorted distinct labels of a manifest's rows: class index = position.
std::vector<std::string> manifest_labels(const Manifest& manifest);

}  // namespace blockstate::data
