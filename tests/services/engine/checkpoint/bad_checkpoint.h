#ifndef TESTS_SERVICES_ENGINE_CHECKPOINT_BAD_CHECKPOINT_H_
#define TESTS_SERVICES_ENGINE_CHECKPOINT_BAD_CHECKPOINT_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "services/engine/model.h"
#include "tests/services/engine/fixture.h"

namespace mechinterp::engine {

// A copy of a fixture, to be damaged.
class BadCheckpoint : public testing::Test {
 protected:
  void SetUp() override {
    directory_ =
        std::filesystem::temp_directory_path() / ("abstract-bad-checkpoint-" + std::to_string(::getpid()));
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    CopyFixture("llama3-gqa");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void CopyFixture(const std::string& name) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    for (const auto& entry : std::filesystem::directory_iterator(TestData(name))) {
      const std::string file = entry.path().filename();
      if (file != "expected.safetensors" && file != "cases.json")
        std::filesystem::copy(entry.path(), directory_ / file);
    }
  }
  std::string Error(const std::string& directory) {
    const auto model = Model::Load(directory);
    EXPECT_FALSE(model.ok());
    return std::string(model.status().message());
  }
  std::string Error() { return Error(directory_.string()); }

  void ChangeConfig(const std::string& key, const nlohmann::json& value) {
    nlohmann::json config = nlohmann::json::parse(std::ifstream(directory_ / "config.json"));
    config[key] = value;
    std::ofstream(directory_ / "config.json") << config;
  }
  void ChangeIndex(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json index = nlohmann::json::parse(std::ifstream(directory_ / "model.safetensors.index.json"));
    change(index["weight_map"]);
    std::ofstream(directory_ / "model.safetensors.index.json") << index;
  }
  // Rewrites the JSON header of model.safetensors.
  void ChangeHeader(const std::function<void(nlohmann::json&)>& change) {
    std::ifstream in(directory_ / "model.safetensors", std::ios::binary);
    std::string content(std::istreambuf_iterator<char>(in), {});
    uint64_t size;
    std::memcpy(&size, content.data(), 8);
    nlohmann::json header = nlohmann::json::parse(content.substr(8, size));
    change(header);
    WriteHeader(header.dump(), content.substr(8 + size));
  }
  void WriteHeader(const std::string& header, const std::string& data) {
    std::ofstream out(directory_ / "model.safetensors", std::ios::binary);
    const uint64_t size = header.size();
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << header << data;
  }

  // Takes a tensor out, and its bytes.
  void RemoveTensor(const std::string& name) {
    std::ifstream in(directory_ / "model.safetensors", std::ios::binary);
    std::string content(std::istreambuf_iterator<char>(in), {});
    in.close();
    uint64_t size;
    std::memcpy(&size, content.data(), 8);
    nlohmann::json header = nlohmann::json::parse(content.substr(8, size));
    std::string data = content.substr(8 + size);
    const int64_t begin = header[name]["data_offsets"][0], end = header[name]["data_offsets"][1];
    header.erase(name);
    data.erase(begin, end - begin);
    for (nlohmann::json& entry : header) {
      if (!entry.contains("data_offsets")) continue;
      for (nlohmann::json& offset : entry["data_offsets"]) {
        if (offset.get<int64_t>() >= end) offset = offset.get<int64_t>() - (end - begin);
      }
    }
    WriteHeader(header.dump(), data);
  }

  // Adds zeros in fp32 under a name.
  void AddTensor(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t bytes = 4;
    for (int64_t size : shape) bytes *= size;
    ChangeHeader([&](nlohmann::json& header) {
      int64_t end = 0;
      for (const nlohmann::json& entry : header)
        end = std::max(end, entry.value("/data_offsets/1"_json_pointer, int64_t{0}));
      header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
    });
    std::ofstream(directory_ / "model.safetensors", std::ios::binary | std::ios::app)
        << std::string(bytes, '\0');
  }
  absl::StatusOr<std::shared_ptr<const Model>> Load() { return Model::Load(directory_.string()); }

  std::filesystem::path directory_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_CHECKPOINT_BAD_CHECKPOINT_H_
