#ifndef CLIENTS_REPORT_DOCUMENT_H_
#define CLIENTS_REPORT_DOCUMENT_H_

#include <string>
#include <variant>
#include <vector>

namespace mechinterp {

// Headings, paragraphs, lists and tables, to be written as Markdown or as a page of HTML. All texts are
// plain: whatever they hold is shown, and is never markup.
class Document {
 public:
  explicit Document(std::string title) : title_(std::move(title)) {}

  void AddHeading(std::string text) { blocks_.push_back(Heading{std::move(text)}); }
  void AddParagraph(std::string text) { blocks_.push_back(Paragraph{std::move(text)}); }
  void AddList(std::vector<std::string> items) { blocks_.push_back(List{std::move(items)}); }
  // Rows of as many cells as the head.
  void AddTable(std::vector<std::string> head, std::vector<std::vector<std::string>> rows) {
    blocks_.push_back(Table{std::move(head), std::move(rows)});
  }
  // A command line, or several, a line each.
  void AddCommands(std::vector<std::string> lines) { blocks_.push_back(Commands{std::move(lines)}); }

  std::string ToMarkdown() const;
  // A page by itself, with its style, that loads nothing.
  std::string ToHtml() const;

 private:
  struct Heading {
    std::string text;
  };
  struct Paragraph {
    std::string text;
  };
  struct List {
    std::vector<std::string> items;
  };
  struct Table {
    std::vector<std::string> head;
    std::vector<std::vector<std::string>> rows;
  };
  struct Commands {
    std::vector<std::string> lines;
  };
  using Block = std::variant<Heading, Paragraph, List, Table, Commands>;

  static std::string MarkdownOf(const Block& block);
  static std::string HtmlOf(const Block& block);

  std::string title_;
  std::vector<Block> blocks_;
};

}  // namespace mechinterp

#endif  // CLIENTS_REPORT_DOCUMENT_H_
