#ifndef SERVICES_COMMON_STATUS_MACROS_H_
#define SERVICES_COMMON_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Early return on error, for functions that return absl::Status or StatusOr.
// Depends on absl only. (Debian 12's Abseil has no status_macros.h of its own.)
//
//   ABSTRACT_RETURN_IF_ERROR(Check(request));
//   ABSTRACT_ASSIGN_OR_RETURN(const Config config, LoadConfig(path));
//   ABSTRACT_ASSIGN_OR_RETURN(auto [names, shapes], Read(file));    // no braces or commas
//                                                                   // outside () or []
#define ABSTRACT_RETURN_IF_ERROR(expression)                                  \
  do {                                                                        \
    if (absl::Status abstract_status = (expression); !abstract_status.ok()) { \
      return abstract_status;                                                 \
    }                                                                         \
  } while (false)

#define ABSTRACT_ASSIGN_OR_RETURN(declaration, ...)                                                   \
  ABSTRACT_ASSIGN_OR_RETURN_IMPL_(ABSTRACT_MACRO_CONCAT_(abstract_status_or_, __LINE__), declaration, \
                                  (__VA_ARGS__))

#define ABSTRACT_ASSIGN_OR_RETURN_IMPL_(status_or, declaration, expression) \
  auto status_or = expression;                                              \
  if (!status_or.ok()) return std::move(status_or).status();                \
  declaration = *std::move(status_or)

#define ABSTRACT_MACRO_CONCAT_(a, b) ABSTRACT_MACRO_CONCAT_INNER_(a, b)
#define ABSTRACT_MACRO_CONCAT_INNER_(a, b) a##b

#endif  // SERVICES_COMMON_STATUS_MACROS_H_
