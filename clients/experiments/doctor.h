#ifndef CLIENTS_EXPERIMENTS_DOCTOR_H_
#define CLIENTS_EXPERIMENTS_DOCTOR_H_

#include "absl/status/statusor.h"
#include "clients/lib/model_client.h"
#include "clients/lib/monitor.h"
#include "mechinterp/v1/doctor.pb.h"

namespace mechinterp {

// Examines a server: what it runs on, whether its device computes what the CPU
// does, how fast it is. Prompts are token ids, so any model will do. What fails is
// a problem in the report, and the rest is still tried; create_time is set,
// client_version and health are the caller's.
// Blocks, for seconds to minutes by the size of the model. `monitor` may be null.
// Errors: those of GetModel, without which there is nothing to tell.
absl::StatusOr<v1::DoctorReport> ExamineServer(ModelClient& client, ExperimentMonitor* monitor);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DOCTOR_H_
