# What `cmake --install` puts where: the programs with their data, manual pages and completions, and the client library
# for other projects' find_package(abstract), as component Development.
include(CMakePackageConfigHelpers)

set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME Runtime)
set(data_folder ${CMAKE_INSTALL_DATADIR}/abstract)
install(TARGETS abstract abstract-model-server abstract-analysis-server)
install(DIRECTORY data/models data/published DESTINATION ${data_folder})
file(GLOB data_files ${PROJECT_SOURCE_DIR}/data/*.json)
install(FILES data/config.yaml ${data_files} DESTINATION ${data_folder})
install(DIRECTORY proto DESTINATION ${data_folder} FILES_MATCHING PATTERN "*.proto")

# Manual pages and completions, which the programs print themselves.
if(NOT CMAKE_CROSSCOMPILING OR CMAKE_CROSSCOMPILING_EMULATOR)
  set(documents ${PROJECT_BINARY_DIR}/documents)
  file(MAKE_DIRECTORY ${documents})
  set(made "")
  function(print_document file folder program)
    add_custom_command(OUTPUT ${documents}/${file} COMMAND ${program} ${ARGN} > ${documents}/${file} DEPENDS ${program}
      COMMENT "${file}" VERBATIM)
    set(made ${made} ${documents}/${file} PARENT_SCOPE)
    install(FILES ${documents}/${file} DESTINATION ${folder})
  endfunction()
  foreach(program abstract abstract-model-server abstract-analysis-server)
    print_document(${program}.1 ${CMAKE_INSTALL_MANDIR}/man1 ${program} --manual-page)
  endforeach()
  print_document(abstract ${CMAKE_INSTALL_DATADIR}/bash-completion/completions abstract completion bash)
  print_document(_abstract ${CMAKE_INSTALL_DATADIR}/zsh/site-functions abstract completion zsh)
  print_document(abstract.fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d abstract completion fish)
  add_custom_target(program_documents ALL DEPENDS ${made})
endif()

# The client library and all of ours that it links.
set(libraries mechinterp_proto common_violations common_text common_text_file common_json_file common_files
  common_status common_study common_tensor_bytes common_tls common_trace_context clients_files clients_lib)
set(headers ${CMAKE_INSTALL_INCLUDEDIR}/abstract)
foreach(library ${libraries})
  set_target_properties(${library} PROPERTIES OUTPUT_NAME abstract_${library})
  target_compile_features(${library} PUBLIC cxx_std_20)
endforeach()
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME Development)
install(TARGETS ${libraries} EXPORT abstractTargets INCLUDES DESTINATION ${headers})
install(DIRECTORY clients/lib DESTINATION ${headers}/clients FILES_MATCHING PATTERN "*.h")
foreach(name experiments json_file keepalive proto_json ranking status status_macros text text_file tls violations)
  install(FILES services/common/${name}.h DESTINATION ${headers}/services/common)
endforeach()
install(DIRECTORY ${PROJECT_BINARY_DIR}/proto/mechinterp ${PROJECT_BINARY_DIR}/proto/google DESTINATION ${headers}
  FILES_MATCHING PATTERN "*.pb.h" PATTERN "*_mock.grpc.pb.h" EXCLUDE)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/abstract)
configure_package_config_file(cmake/abstractConfig.cmake.in ${PROJECT_BINARY_DIR}/abstractConfig.cmake
  INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/abstractConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/abstractConfig.cmake ${PROJECT_BINARY_DIR}/abstractConfigVersion.cmake
  DESTINATION ${package_folder})
install(EXPORT abstractTargets NAMESPACE abstract:: DESTINATION ${package_folder})
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME Runtime)
