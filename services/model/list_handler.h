#ifndef SERVICES_MODEL_LIST_HANDLER_H_
#define SERVICES_MODEL_LIST_HANDLER_H_

#include <string>

#include "absl/status/status.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/model/served_model.h"

namespace mechinterp {

// Lists, a page at a time (services/common/paging.h). InvalidArgument for what is no
// page's size or token.

// ListHookPoints: in the order of the forward pass.
absl::Status HandleListHookPoints(const ServedModel& served, const v1::ListHookPointsRequest& request,
                                  v1::ListHookPointsResponse& response);

// ListActivations: this owner's stored runs in the order of their creation. One that is deleted
// between two pages makes no other be left out.
absl::Status HandleListActivations(ServedModel& served, const v1::ListActivationsRequest& request,
                                   v1::ListActivationsResponse& response, const std::string& owner);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_LIST_HANDLER_H_
