// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "apps/format.h"
#include "apps/report/compare_report.h"
#include "apps/report/curves.h"
#include "apps/report/html_table.h"
#include "apps/report/page_text.h"
#include "core/base/check.h"

namespace blockstate::apps {
namespace {

ComparisonRun make_run(const std::string& variant, int64_t seed, int64_t parameters, double loss, double metric) {
  ComparisonRun run{variant,    seed,
                    parameters, {},
                    {},         loss,
                    metric,     12000.0 + static_cast<double>(seed),
                    210 << 20,  48.0 + static_cast<double>(seed)};
  for (int64_t step = 10; step <= 600; step += 10) {
    const auto t = static_cast<double>(step);
    const double wobble = 0.05 * std::sin(t * static_cast<double>(seed + 3));
    run.curve.push_back({step, step * 16000, loss + 1.2 * std::exp(-t / 150) + wobble, t * 0.08});
  }
  for (int64_t step = 100; step <= 600; step += 100) {
    const auto t = static_cast<double>(step);
    run.validation.push_back(
        {step, step * 16000, loss + 1.2 * std::exp(-t / 150), metric * (1 - 0.7 * std::exp(-t / 150)), t * 0.08});
  }
  return run;
}

Comparison make_comparison() {
  Comparison comparison;
  comparison.title = "Spoken prompts in five languages";
  comparison.task = "classify";
  comparison.metric = "accuracy";
  comparison.data = "612 clips of 5 languages at 8 kHz, 130 held out";
  comparison.budget = "600 steps of 16 clips; parameters matched within 2 %";
  comparison.settings = "seed = 1\n\n[model]\nd_model = 64\n";
  for (int64_t seed = 1; seed <= 3; ++seed) {
    const double shift = 0.011 * static_cast<double>(seed - 2);
    comparison.runs.push_back(make_run("mamba", seed, 61235, 0.412 - shift, 0.934 + shift));
    comparison.runs.push_back(make_run("hybrid (MF)", seed, 61009, 0.301 - shift, 0.967 + shift));
    comparison.runs.push_back(make_run("attention", seed, 60877, 0.655 - shift, 0.881 + shift));
  }
  return comparison;
}

/// For texts too long to be printed by a failing CHECK_THAT.
bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

int64_t count(std::string_view text, std::string_view part) {
  int64_t found = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) {
    ++found;
  }
  return found;
}

/// Whether HTML, CSS or script names anything that a browser would fetch.
bool names_a_resource(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  for (const char* part : {"src=", "href=", "action=", "url(", "@import", "<link", "<img", "<iframe", "<object",
                           "fetch(", "xmlhttprequest", "http:", "https:"}) {
    if (contains(text, part)) {
      return true;
    }
  }
  return false;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(line);
  }
  return lines;
}

TEST_CASE("the table lines up and marks the best", "[cpu]") {
  const std::string text = terminal_table(make_comparison());
  INFO(text);
  const std::vector<std::string> lines = lines_of(text);
  CHECK(lines[0] == "Spoken prompts in five languages");
  CHECK(lines[3] == "  budget  600 steps of 16 clips; parameters matched within 2 %");
  CHECK(lines[5] == "variant      parameters    loss   accuracy       over seeds  tokens/s  peak memory  time");
  CHECK(lines[6] == "-----------  ----------  -------  ---------  --------------  --------  -----------  ----");
  CHECK(lines[7] == "mamba            61,235  0.4120     0.9340   0.9230..0.9450    12,002      210 MiB  50 s");
  CHECK(lines[8] == "hybrid (MF)      61,009  0.3010*    0.9670*  0.9560..0.9780    12,002      210 MiB  50 s");
  CHECK(lines[10] == "* best of its column");
  CHECK(lines.back() ==
        "hybrid (MF) has the best accuracy, 0.9670 (0.9560..0.9780 over 3 seeds); mamba 0.9340 and attention 0.8810.");
}

TEST_CASE("the table lines up with names of any script", "[cpu]") {
  Comparison comparison = make_comparison();
  for (ComparisonRun& run : comparison.runs) {
    run.variant = run.variant == "mamba" ? "音声モデル" : run.variant == "attention" ? "Größe" : run.variant;
  }
  const std::vector<std::string> lines = lines_of(terminal_table(comparison));
  for (size_t i = 7; i < 10; ++i) {
    CHECK(display_width(lines[i]) == display_width(lines[6]));
  }
}

TEST_CASE("lower is better where the metric says so", "[cpu]") {
  Comparison comparison = make_comparison();
  comparison.metric = "bits per base";
  comparison.higher_is_better = false;
  CHECK_THAT(terminal_table(comparison), Catch::Contains(" 0.8810* "));
  CHECK_THAT(headline(comparison), Catch::StartsWith("attention has the best bits per base, 0.8810"));
}

TEST_CASE("the headline owns up to doubt", "[cpu]") {
  Comparison comparison = make_comparison();
  comparison.runs[0].metric = 0.96;
  CHECK_THAT(headline(comparison), Catch::EndsWith("Its range over seeds overlaps that of mamba."));
  comparison.runs.resize(3);
  CHECK_THAT(headline(comparison), Catch::EndsWith("One seed each: the differences may be chance."));
  comparison.runs[0].metric = comparison.runs[1].metric;
  CHECK_THAT(headline(comparison), Catch::EndsWith("It is level with hybrid (MF)."));
  for (const char* name : {"a", "b", "c"}) {
    comparison.runs.push_back(make_run(name, 1, 1000, 1, 0.5));
  }
  CHECK_THAT(headline(comparison), Catch::Contains("; hybrid (MF) 0.9560, attention 0.8700, a 0.5000 and 2 more."));
  comparison.runs.resize(1);
  CHECK(headline(comparison) == "mamba reaches accuracy 0.9560.");
}

TEST_CASE("no run, one run, and runs that diverged", "[cpu]") {
  Comparison comparison;
  CHECK(terminal_table(comparison) == "No runs to compare.\n");
  CHECK(csv_text(comparison) == "variant,seed,parameters,loss,metric,tokens_per_second,peak_memory_bytes,seconds\n");
  CHECK(contains(html_text(comparison), "No runs to compare."));
  CHECK(headline(comparison).empty());

  comparison.runs.push_back({"only", 1, 10, {}, {}, 0.5, 0.75, 100, 0, 2});
  CHECK(terminal_table(comparison) ==
        "variant  parameters    loss  metric  tokens/s  peak memory   time\n"
        "-------  ----------  ------  ------  --------  -----------  -----\n"
        "only             10  0.5000  0.7500       100          n/a  2.0 s\n"
        "\nonly reaches metric 0.7500.\n");
  CHECK(contains(html_text(comparison), "0.7500"));
  CHECK_FALSE(contains(page_data(comparison), "NaN"));

  comparison.runs.push_back({"only", 2, 10, {{1, 1, NAN, NAN}}, {}, NAN, NAN, 100, 0, 2});
  CHECK_THAT(terminal_table(comparison), Catch::Contains("only: 1 of 2 seeds gave no finite metric"));
  CHECK_THAT(page_data(comparison), !Catch::Contains("nan") && Catch::Contains("\"loss\":[null]"));
  comparison.runs.erase(comparison.runs.begin());
  CHECK_THAT(terminal_table(comparison), Catch::Contains("n/a"));
  CHECK(headline(comparison).empty());
}

TEST_CASE("CSV has a row a run, quoted where it must be", "[cpu]") {
  Comparison comparison = make_comparison();
  comparison.metric = "F1, macro";
  comparison.runs.resize(2);
  comparison.runs[0].variant = "a \"b\", c\nd";
  comparison.runs[1].loss = NAN;
  comparison.runs[1].metric = 0.1;
  CHECK(csv_text(comparison) ==
        "variant,seed,parameters,loss,\"F1, macro\",tokens_per_second,peak_memory_bytes,seconds\n"
        "\"a \"\"b\"\", c\nd\",1,61235,0.423,0.923,12001,220200960,49\n"
        "hybrid (MF),1,61009,,0.1,12001,220200960,49\n");
}

TEST_CASE("text of the user's stays text in the page", "[cpu]") {
  CHECK(escape_html("<a href=\"x\" b='c'>&") == "&lt;a href=&quot;x&quot; b=&#39;c&#39;&gt;&amp;");
  CHECK(escape_html("Größe 音\n\t") == "Größe 音\n\t");
  CHECK(escape_html(std::string_view("a\0b\x1b\x7f\r", 6)) ==
        "a\xEF\xBF\xBD"
        "b\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(escape_html("\xff\xc0\xaf\xed\xa0\x80\xe9") == escape_html("\x01\x01\x01\x01\x01\x01\x01"));

  const std::string evil = "</script><script>alert(1)</script><!-- {{data}} \xff";
  Comparison comparison = make_comparison();
  comparison.title = comparison.task = comparison.metric = comparison.data = comparison.budget = comparison.settings =
      evil;
  for (ComparisonRun& run : comparison.runs) {
    run.variant += evil;
  }
  const std::string page = html_text(comparison);
  CHECK(page.find("<script>alert") == std::string::npos);
  CHECK(page.find("</script><script>alert") == std::string::npos);
  CHECK(contains(page, "&lt;/script&gt;&lt;script&gt;alert(1)"));
  CHECK(contains(page, "\\u003c/script>\\u003cscript>alert(1)"));
  // The page's own elements, no more: data, Chart.js, our script.
  CHECK(count(page, "<script>") + count(page, "<script ") == 3);
}

TEST_CASE("the page needs nothing from elsewhere", "[cpu]") {
  const std::string page = html_text(make_comparison());
  const std::string own = page.substr(0, page.find(kChartJs)) + page.substr(page.find(kChartJs) + kChartJs.size());
  CHECK_FALSE(names_a_resource(own));
  CHECK(names_a_resource("<SCRIPT SRC='https://x'>"));
  CHECK(names_a_resource("a { background: URL(x.png) }"));
  CHECK(contains(own, "default-src 'none'"));
  CHECK_FALSE(contains(own, "{{"));
  CHECK(kChartJs.size() > 100000);
  CHECK_FALSE(contains(kChartJs, "</script"));
  CHECK(contains(kChartJs, "Chart.js v"));
  CHECK(contains(page, "Permission is hereby granted, free of charge"));
}

TEST_CASE("long curves are thinned out to means", "[cpu]") {
  std::vector<CurvePoint> curve;
  for (int64_t step = 1; step <= 10; ++step) {
    curve.push_back({step, step * 2, static_cast<double>(step), static_cast<double>(step)});
  }
  const std::vector<CurvePoint> thin = thin_out(curve, 4);
  REQUIRE(thin.size() == 3);
  CHECK(thin[0].step == 4);
  CHECK(thin[0].train_loss == 2.5);
  CHECK(thin[2].step == 10);
  CHECK(thin[2].train_loss == 9.5);
  CHECK(thin[2].tokens == 20);
  CHECK(thin_out(curve, 1).size() == 10);
  CHECK(thin_out({}, 4).empty());

  Comparison comparison;
  comparison.runs.push_back({"long", 1, 10, {}, {}, 0.5, 0.75, 100, 0, 2});
  for (int64_t step = 1; step <= 100000; ++step) {
    comparison.runs[0].curve.push_back({step, step, 1.0, kUnknown});
  }
  CHECK(page_data(comparison).size() < 20000);
}

TEST_CASE("files are written whole, or the reason is told", "[cpu]") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "blockstate_test_report";
  std::filesystem::create_directories(folder);
  const std::string page = (folder / "compare.html").string();
  write_html(make_comparison(), page);
  write_csv(make_comparison(), (folder / "compare.csv").string());
  std::ifstream stream(page, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  CHECK((text == html_text(make_comparison())));
  CHECK((text.substr(text.size() - 8) == "</html>\n"));
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    CHECK(entry.path().extension() != ".tmp");
    ++files;
  }
  CHECK(files == 2);
  std::filesystem::create_directory(folder / "taken");
  CHECK_THROWS_WITH(write_csv(make_comparison(), (folder / "taken").string()),
                    Catch::Contains("taken cannot be written: "));
  CHECK_THROWS_WITH(write_csv(make_comparison(), (folder / "none" / "x.csv").string()),
                    Catch::EndsWith("x.csv cannot be written: No such file or directory"));
  CHECK_THROWS_WITH(write_html(make_comparison(), "/dev/full/x"), Catch::Contains("cannot be written"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace blockstate::apps
