// SPDX-License-Identifier: Apache-2.0
// Errors that reach the user. C++17-clean: included from .cu files.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace blockstate {

/// A mistake in the user's input, configuration or call. The text is a whole sentence that names what was
/// wanted and what was found; the programs print it as it is.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A device has too little memory for what was asked of it.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

namespace detail {
inline void append(std::string& out, std::string_view text) { out += text; }
inline void append(std::string& out, const char* text) { out += text; }
inline void append(std::string& out, const std::string& text) { out += text; }
inline void append(std::string& out, char c) { out += c; }
inline void append(std::string& out, bool value) { out += value ? "true" : "false"; }
void append(std::string& out, double value);
template <class Integer>
std::enable_if_t<std::is_integral_v<Integer>> append(std::string& out, Integer value) {
  out += std::to_string(value);
}
}  // namespace detail

/// Joins its arguments (text, integers, doubles, bools) into one string.
template <class... Parts>
std::string join(const Parts&... parts) {
  std::string text;
  (detail::append(text, parts), ...);
  return text;
}

/// Throws Error with the joined text.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(join(parts...));
}

/// Throws Error with the joined text unless `condition` holds.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) {
    fail(parts...);
  }
}

}  // namespace blockstate
