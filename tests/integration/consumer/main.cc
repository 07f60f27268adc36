// Prints the name of the model that the server at argv[1] serves.
#include <iostream>

#include "clients/lib/connection.h"
#include "clients/lib/model_client.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  mechinterp::ModelClient client(mechinterp::v1::ModelService::NewStub(mechinterp::ConnectTo(argv[1])));
  const auto model = client.GetModel();
  if (!model.ok()) std::cerr << model.status() << "\n";
  if (model.ok()) std::cout << model->identity().name() << "\n";
  return model.ok() ? 0 : 1;
}
