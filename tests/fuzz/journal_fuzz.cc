// The journal of an experiment.

#include <filesystem>
#include <map>
#include <string>

#include "clients/lib/journal.h"
#include "mechinterp/v1/results.pb.h"
#include "tests/fuzz/fuzz_target.h"

ABSTRACT_FUZZ_TARGET(journal) {
  using namespace mechinterp;
  using fuzz::Require;
  const Fingerprint fingerprint = {{"--limit", "5"}, {"model", "abc"}};
  const std::string path = fuzz::ScratchFile("journal.jsonl", input);
  v1::Rate rate;
  rate.set_success_count(3);
  bool has_part = false;
  int parts = 0;
  {
    const auto journal = Journal::Open(path, fingerprint, /*restart=*/false);
    fuzz::RequireOk(journal.status(), "no journal stands in the way of a run");
    Require((*journal)->set_aside_path().empty() == (*journal)->discard_reason().empty(),
            "what is set aside has a reason");
    Require((*journal)->discard_reason().size() <= input.size() + 2000, "a reason is short");
    v1::Rate found;
    has_part = (*journal)->Find("b", &found);
    parts = (*journal)->resumed_part_count();
    fuzz::RequireOk((*journal)->Record("a \"new\" part", rate), "a part can be recorded");
  }
  {
    const auto journal = Journal::Open(path, fingerprint, /*restart=*/false);
    fuzz::RequireOk(journal.status(), "the journal can be opened again");
    Require((*journal)->discard_reason().empty(), "a journal of ours is used again");
    v1::Rate found;
    Require((*journal)->Find("a \"new\" part", &found) && found.success_count() == 3, "a part comes back");
    Require((*journal)->Find("b", &found) == has_part, "older parts come back");
    const int now = (*journal)->resumed_part_count();
    Require(now == parts || now == parts + 1, "no other part comes or goes");
    fuzz::RequireOk((*journal)->Remove(), "a journal can be deleted");
  }
}
