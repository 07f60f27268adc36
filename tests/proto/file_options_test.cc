// The proto files, as generators of other languages find them.

#include <cctype>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/analysis_service.pb.h"
#include "mechinterp/v1/doctor.pb.h"
#include "mechinterp/v1/hook.pb.h"
#include "mechinterp/v1/model_service.pb.h"
#include "mechinterp/v1/prompt.pb.h"
#include "mechinterp/v1/results.pb.h"
#include "mechinterp/v1/tensor.pb.h"
#include "mechinterp/v1/tool.pb.h"

namespace mechinterp {
namespace {

using google::protobuf::FileDescriptor;
using google::protobuf::FileOptions;

std::vector<const FileDescriptor*> Files() {
  return {v1::Study::descriptor()->file(),        v1::DoctorReport::descriptor()->file(),
          v1::Intervention::descriptor()->file(), v1::ModelIdentity::descriptor()->file(),
          v1::Prompt::descriptor()->file(),       v1::Provenance::descriptor()->file(),
          v1::Tensor::descriptor()->file(),       v1::CacheReport::descriptor()->file()};
}

// "model_service.proto" -> "ModelServiceProto", as AIP-191 names the class.
std::string OuterClassOf(const FileDescriptor& file) {
  const std::string path(file.name());
  std::string name;
  bool upper = true;
  for (const char c : path.substr(path.rfind('/') + 1)) {
    if (c == '.') break;
    if (c != '_') name += upper ? static_cast<char>(std::toupper(c)) : c;
    upper = c == '_';
  }
  return name + "Proto";
}

TEST(FileOptions, NameThePackageOfEveryLanguage) {
  for (const FileDescriptor* file : Files()) {
    const FileOptions& options = file->options();
    // protoc-gen-go refuses files without one; the part after ';' is the package's name.
    EXPECT_EQ(options.go_package(), "abstract/mechinterp/v1;mechinterpv1") << file->name();
    EXPECT_EQ(options.java_package(), "mechinterp.v1") << file->name();
    EXPECT_TRUE(options.java_multiple_files()) << file->name();
    EXPECT_EQ(options.java_outer_classname(), OuterClassOf(*file));
    EXPECT_EQ(options.csharp_namespace(), "Mechinterp.V1") << file->name();
    EXPECT_EQ(options.objc_class_prefix(), "MIP") << file->name();
    EXPECT_EQ(options.php_namespace(), "Mechinterp\\V1") << file->name();
    EXPECT_EQ(options.ruby_package(), "Mechinterp::V1") << file->name();
  }
}

// With any other, programs would have two types of one name.
TEST(FileOptions, OfGooglesOwnFileAreGooglesOwn) {
  const FileOptions& options = google::rpc::ErrorInfo::descriptor()->file()->options();
  EXPECT_EQ(options.go_package(), "google.golang.org/genproto/googleapis/rpc/errdetails;errdetails");
  EXPECT_EQ(options.java_package(), "com.google.rpc");
  EXPECT_TRUE(options.java_multiple_files());
  EXPECT_EQ(options.java_outer_classname(), "ErrorDetailsProto");
  EXPECT_EQ(options.objc_class_prefix(), "RPC");
}

}  // namespace
}  // namespace mechinterp
