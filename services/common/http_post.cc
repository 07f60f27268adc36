#include "services/common/http_post.h"

#include <curl/curl.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "services/common/version.h"

namespace mechinterp {
namespace {

constexpr size_t kMostAnswerBytes = 64 << 10;

void InitializeOnce() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

std::string PartOf(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, 0) != CURLUE_OK) return "";
  std::string copy = text;
  curl_free(text);
  return copy;
}

size_t TakeAnswer(char* data, size_t, size_t size, void* body) {
  std::string& text = *static_cast<std::string*>(body);
  text.append(data, std::min(size, kMostAnswerBytes - text.size()));
  return size;  // what is more is read and dropped
}

int AskWhetherToStop(void* must_stop, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& ask = *static_cast<const std::function<bool()>*>(must_stop);
  return ask != nullptr && ask() ? 1 : 0;
}

}  // namespace

struct HttpPoster::Handle {
  explicit Handle(CURL* easy) : curl(easy) {}
  ~Handle() { curl_easy_cleanup(curl); }
  CURL* const curl;
};

HttpPoster::HttpPoster(std::string url, std::unique_ptr<Handle> handle)
    : url_(std::move(url)), handle_(std::move(handle)) {}

HttpPoster::~HttpPoster() = default;

absl::StatusOr<std::unique_ptr<HttpPoster>> HttpPoster::Create(const std::string& text) {
  InitializeOnce();
  CURLU* const url = curl_url();
  if (url == nullptr) return absl::ResourceExhaustedError("no memory for a URL");
  const absl::Cleanup free_url = [url] { curl_url_cleanup(url); };
  const bool parses = curl_url_set(url, CURLUPART_URL, text.c_str(), 0) == CURLUE_OK;
  const std::string scheme = parses ? PartOf(url, CURLUPART_SCHEME) : "";
  if ((scheme != "http" && scheme != "https") || PartOf(url, CURLUPART_HOST).empty()) {
    return absl::InvalidArgumentError("must be an http:// or https:// URL");
  }
  if (!PartOf(url, CURLUPART_USER).empty() || !PartOf(url, CURLUPART_PASSWORD).empty()) {
    return absl::InvalidArgumentError("must be a URL without a user or a password");
  }
  CURL* const curl = curl_easy_init();
  if (curl == nullptr) return absl::ResourceExhaustedError("no memory for HTTP");
  auto handle = std::make_unique<Handle>(curl);
  curl_easy_setopt(curl, CURLOPT_URL, text.c_str());
#if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
  curl_easy_setopt(curl, CURLOPT_POST, 1L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, AskWhetherToStop);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, TakeAnswer);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, absl::StrCat("abstract/", kVersion).c_str());
  // As the servers' other clients: loopback is reached past any proxy.
  const std::string host = PartOf(url, CURLUPART_HOST);
  if (host == "localhost" || host == "[::1]" || host.rfind("127.", 0) == 0) {
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
  }
  return std::unique_ptr<HttpPoster>(new HttpPoster(text, std::move(handle)));
}

absl::StatusOr<HttpPostAnswer> HttpPoster::Post(const std::string& content_type, const std::string& body,
                                                absl::Duration timeout,
                                                const std::function<bool()>& must_stop) {
  CURL* const curl = handle_->curl;
  curl_slist* const headers =
      curl_slist_append(nullptr, absl::StrCat("Content-Type: ", content_type).c_str());
  const absl::Cleanup free_headers = [headers] { curl_slist_free_all(headers); };
  HttpPostAnswer answer;
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                   std::max(1L, static_cast<long>(absl::ToInt64Milliseconds(timeout))));
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer.body);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, const_cast<std::function<bool()>*>(&must_stop));
  const CURLcode code = curl_easy_perform(curl);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, nullptr);
  if (code == CURLE_ABORTED_BY_CALLBACK) return absl::CancelledError("no longer wanted");
  if (code != CURLE_OK) {
    return absl::UnavailableError(absl::StrCat("no answer from ", url_, ": ", curl_easy_strerror(code)));
  }
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  answer.status = static_cast<int>(status);
  curl_off_t seconds = 0;
  curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &seconds);
  answer.retry_after = absl::Seconds(std::max<curl_off_t>(0, seconds));
  return answer;
}

}  // namespace mechinterp
