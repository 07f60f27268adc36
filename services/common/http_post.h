#ifndef SERVICES_COMMON_HTTP_POST_H_
#define SERVICES_COMMON_HTTP_POST_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mechinterp {

struct HttpPostAnswer {
  int status = 0;
  std::string body;            // its first 64 KiB
  absl::Duration retry_after;  // as the server asks; zero where it does not
};

// Posts to one URL, http or https, over a connection that is kept. Redirections are not followed. For one
// thread at a time.
class HttpPoster {
 public:
  // Errors: InvalidArgument for what is no such URL, or has a password in it: a command line is no place for
  // that.
  static absl::StatusOr<std::unique_ptr<HttpPoster>> Create(const std::string& url);
  ~HttpPoster();

  // `must_stop` (may be null) is asked about once a second, from within. Errors: Unavailable where there is
  // no answer in time; Cancelled.
  absl::StatusOr<HttpPostAnswer> Post(const std::string& content_type, const std::string& body,
                                      absl::Duration timeout,
                                      const std::function<bool()>& must_stop = nullptr);

  const std::string& url() const { return url_; }

 private:
  struct Handle;
  HttpPoster(std::string url, std::unique_ptr<Handle> handle);

  const std::string url_;
  const std::unique_ptr<Handle> handle_;
};

}  // namespace mechinterp

#endif  // SERVICES_COMMON_HTTP_POST_H_
