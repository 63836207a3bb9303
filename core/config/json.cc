// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/config/value.h"

namespace blockstate::config {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kDeepest = 256;

/// Builds the tree while the text is read, because a finished Json no longer knows of keys given twice.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(const std::string& name) : name_(name) {}

  Value take() { return std::move(root_); }

  bool null() override {
    require(!open_.empty() && open_.back()->is(Value::Kind::kTable), name_, ": found null",
            key_.empty() ? "" : join(" under the key ", quote(key_)), ", wanted a value");
    return true;
  }
  bool boolean(bool truth) override { return add(Value(truth)); }
  bool number_integer(int64_t integer) override { return add(Value(integer)); }
  bool number_unsigned(uint64_t integer) override {
    require(integer <= static_cast<uint64_t>(INT64_MAX), name_, ": the integer ", integer, " does not fit in 64 bits");
    return add(Value(static_cast<int64_t>(integer)));
  }
  bool number_float(double number, const std::string& text) override {
    const bool is_integer = text.find_first_of(".eE") == std::string::npos;
    require(!is_integer, name_, ": the integer ", text, " does not fit in 64 bits");
    return add(Value(number));
  }
  bool string(std::string& text) override { return add(Value(std::move(text))); }
  bool binary(binary_t&) override { fail(name_, ": binary data in JSON"); }
  bool start_object(size_t) override { return open(Value(Value::Table{})); }
  bool start_array(size_t) override { return open(Value(Value::Array{})); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& key) override {
    require(open_.back()->find(key) == nullptr, name_, ": the key ", quote(key), " is given twice");
    key_ = std::move(key);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // The library's text begins with its own error number in brackets.
    const std::string text = error.what();
    const size_t bracket = text.find("] ");
    fail(name_, ": not valid JSON at byte ", position, ": ",
         bracket == std::string::npos ? text : text.substr(bracket + 2));
  }

 private:
  bool add(Value value) {
    place(std::move(value));
    return true;
  }
  Value* place(Value value) {
    value.where = {name_, 0};
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is(Value::Kind::kArray)) {
      open_.back()->array().push_back(std::move(value));
      return &open_.back()->array().back();
    }
    return &open_.back()->set(key_, std::move(value));
  }
  // A pointer into the tree stays good while it is open: its siblings are only added after it has been closed.
  bool open(Value value) {
    require(open_.size() < kDeepest, name_, ": nested deeper than ", kDeepest, " levels");
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string name_;
  std::string key_;
  Value root_;
  std::vector<Value*> open_;
};

Json convert(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kTable: {
      Json object = Json::object();
      for (const Value::Entry& entry : value.table()) {
        object[entry.key] = convert(entry.value);
      }
      return object;
    }
    case Value::Kind::kArray: {
      Json array = Json::array();
      for (const Value& element : value.array()) {
        array.push_back(convert(element));
      }
      return array;
    }
    case Value::Kind::kString:
      return value.text();
    case Value::Kind::kInteger:
      return value.integer();
    case Value::Kind::kNumber:
      require(std::isfinite(value.number()), value.where.prefix(), "JSON cannot hold the number ",
              format_double(value.number()));
      return value.number();
    default:
      return value.truth();
  }
}

std::string dump(const Value& value, int indent) {
  try {
    return convert(value).dump(indent);
  } catch (const nlohmann::json::exception&) {
    fail(value.where.prefix(), "a string that is not valid UTF-8 cannot be written as JSON");
  }
}

}  // namespace

Value parse_json(std::string_view text, const std::string& name) {
  Builder builder(name);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string to_json(const Value& value) { return dump(value, 2) + "\n"; }

std::string to_json_line(const Value& value) { return dump(value, -1); }

}  // namespace blockstate::config
