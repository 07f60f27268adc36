# Three helpers; every target of the project is made by one of them.
#   abstract_library(NAME SOURCES... [DEPENDS targets...])
#   abstract_binary(NAME SOURCES... [DEPENDS targets...])
#   abstract_test(NAME SOURCES... [DEPENDS targets...])     a GoogleTest program, registered with ctest under
#                                                           its folder as label: ctest -L services/engine
# With ABSTRACT_WERROR on, warnings in them are errors.
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH ABSTRACT_SOURCE_DIR)

function(abstract_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wno-unused-parameter
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # GCC 12 sees overlaps that are not there
    $<$<BOOL:${ABSTRACT_WERROR}>:-Werror>)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${ABSTRACT_SOURCE_DIR}>)
endfunction()

function(abstract_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPENDS})
  abstract_compile_options(${name})
endfunction()

function(abstract_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS})
  abstract_compile_options(${name})
endfunction()

function(abstract_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  abstract_binary(${name} SOURCES ${ARG_SOURCES} DEPENDS ${ARG_DEPENDS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ABSTRACT_SOURCE_DIR="${ABSTRACT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  file(RELATIVE_PATH folder ${ABSTRACT_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${folder}")
endfunction()
