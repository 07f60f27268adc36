#ifndef CLIENTS_LIB_PAGES_H_
#define CLIENTS_LIB_PAGES_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/common/status_macros.h"

namespace mechinterp {

// Asks with `ask` for page after page of a list (AIP-158), and joins them into one answer
// without a token. Errors are those of `ask`; DataLoss for pages without an end.
template <typename Response, typename Request, typename Ask>
absl::StatusOr<Response> AllPages(Request request, const Ask& ask) {
  Response all;
  do {
    ABSTRACT_ASSIGN_OR_RETURN(const Response page, ask(request));
    all.MergeFrom(page);  // lists are appended
    if (!page.next_page_token().empty() && page.next_page_token() == request.page_token()) {
      return absl::DataLossError("the server gave a page that leads to itself");
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  all.clear_next_page_token();
  return all;
}

}  // namespace mechinterp

#endif  // CLIENTS_LIB_PAGES_H_
