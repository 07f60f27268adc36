#include "clients/report/document.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "services/common/overloaded.h"

namespace mechinterp {
namespace {

constexpr char kStyle[] =
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;"
    "background:#fff}"
    "h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%;font-size:.9rem}"
    "th,td{border-bottom:1px solid #d0d7de;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    "pre{background:#f6f8fa;padding:.8rem;overflow-x:auto}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th,td{border-color:#30363d}"
    "pre{background:#161b22}}";

std::string OneLine(const std::string& text) { return absl::StrReplaceAll(text, {{"\r", " "}, {"\n", " "}}); }

std::string InMarkdown(const std::string& text) {
  return absl::StrReplaceAll(
      OneLine(text),
      {{"\\", "\\\\"}, {"|", "\\|"}, {"<", "&lt;"}, {"*", "\\*"}, {"_", "\\_"}, {"`", "\\`"}, {"[", "\\["}});
}

std::string InHtml(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string MarkdownRow(const std::vector<std::string>& cells) {
  return absl::StrCat("| ",
                      absl::StrJoin(cells, " | ",
                                    [](std::string* out, const std::string& cell) {
                                      absl::StrAppend(out, InMarkdown(cell));
                                    }),
                      " |\n");
}

std::string HtmlRow(const std::vector<std::string>& cells, const std::string& tag) {
  std::string row = "<tr>";
  for (const std::string& cell : cells) absl::StrAppend(&row, "<", tag, ">", InHtml(cell), "</", tag, ">");
  return absl::StrCat(row, "</tr>\n");
}

}  // namespace

std::string Document::MarkdownOf(const Block& block) {
  return std::visit(
      Overloaded{[](const Heading& heading) { return absl::StrCat("## ", InMarkdown(heading.text), "\n"); },
                 [](const Paragraph& paragraph) { return absl::StrCat(InMarkdown(paragraph.text), "\n"); },
                 [](const List& list) {
                   std::string text;
                   for (const std::string& item : list.items)
                     absl::StrAppend(&text, "- ", InMarkdown(item), "\n");
                   return text;
                 },
                 [](const Table& table) {
                   std::string text = MarkdownRow(table.head);
                   absl::StrAppend(&text, MarkdownRow(std::vector<std::string>(table.head.size(), "---")));
                   for (const auto& row : table.rows) absl::StrAppend(&text, MarkdownRow(row));
                   return text;
                 },
                 [](const Commands& commands) {
                   std::string text;
                   for (const std::string& line : commands.lines)
                     absl::StrAppend(&text, "    ", OneLine(line), "\n");
                   return text;
                 }},
      block);
}

std::string Document::HtmlOf(const Block& block) {
  return std::visit(
      Overloaded{
          [](const Heading& heading) { return absl::StrCat("<h2>", InHtml(heading.text), "</h2>\n"); },
          [](const Paragraph& paragraph) { return absl::StrCat("<p>", InHtml(paragraph.text), "</p>\n"); },
          [](const List& list) {
            std::string text = "<ul>\n";
            for (const std::string& item : list.items)
              absl::StrAppend(&text, "<li>", InHtml(item), "</li>\n");
            return absl::StrCat(text, "</ul>\n");
          },
          [](const Table& table) {
            std::string text =
                absl::StrCat("<table>\n<thead>", HtmlRow(table.head, "th"), "</thead>\n<tbody>\n");
            for (const auto& row : table.rows) absl::StrAppend(&text, HtmlRow(row, "td"));
            return absl::StrCat(text, "</tbody></table>\n");
          },
          [](const Commands& commands) {
            return absl::StrCat("<pre>", InHtml(absl::StrJoin(commands.lines, "\n")), "</pre>\n");
          }},
      block);
}

std::string Document::ToMarkdown() const {
  std::string text = absl::StrCat("# ", InMarkdown(title_), "\n");
  for (const Block& block : blocks_) absl::StrAppend(&text, "\n", MarkdownOf(block));
  return text;
}

std::string Document::ToHtml() const {
  std::string text = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>",
      InHtml(title_), "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n<h1>", InHtml(title_),
      "</h1>\n");
  for (const Block& block : blocks_) absl::StrAppend(&text, HtmlOf(block));
  return absl::StrCat(text, "</body>\n</html>\n");
}

}  // namespace mechinterp
