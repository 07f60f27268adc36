#ifndef SERVICES_MODEL_SERVER_OPTIONS_H_
#define SERVICES_MODEL_SERVER_OPTIONS_H_

#include <string>

#include "services/common/command_line.h"
#include "services/engine/device/device.h"
#include "services/engine/weights/load_options.h"
#include "services/model/served_model.h"
#include "services/rpc/network_options.h"

namespace mechinterp {

// What abstract-model-server is told on its command line.
struct ServerOptions {
  std::string model = "data/models/tiny-llama-refusal";
  NetworkOptions network = NetworkOptions("127.0.0.1:50051");
  std::string metrics_address = "127.0.0.1:9464";
  std::string log_level = "info";
  engine::DevicePreference device = engine::DevicePreference::kAuto;
  bool skip_device_check = false;
  std::string save_quantized;
  std::string store_directory;
  int threads = 0;
  int shutdown_grace_seconds = 10;
  int max_requests = 32;
  int max_queued_requests = 256;
  engine::LoadOptions load;  // but for what the model's source and the device say
  ModelServiceOptions service;
};

// Adds the options to a command line; both must outlive the parsing.
void AddServerOptions(Command command, ServerOptions& options);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SERVER_OPTIONS_H_
