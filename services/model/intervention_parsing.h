#ifndef SERVICES_MODEL_INTERVENTION_PARSING_H_
#define SERVICES_MODEL_INTERVENTION_PARSING_H_

#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/interventions/plan_compiler.h"
#include "services/engine/interventions/sweep_grid.h"
#include "services/model/request_parsing.h"

namespace mechinterp {

// The parts of requests that name sites of the model, from protobuf to the engine's types.
// What is wrong goes to the parser, under `at`; whether sites and positions are the model's
// is checked when they are compiled (RequestParser::Compile).

engine::InterventionSet ParseInterventions(
    RequestParser& parser, const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const FieldViolations& at);
engine::PositionSelector ParsePositions(const v1::PositionSelector& positions, const FieldViolations& at);
engine::CaptureRequest ParseFilter(RequestParser& parser, const v1::ActivationFilter& filter,
                                   const FieldViolations& at);
engine::SweepGrid ParseGrid(RequestParser& parser, const v1::SweepGrid& grid, const FieldViolations& at);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_INTERVENTION_PARSING_H_
