include(CMakeFindDependencyMacro)
find_dependency(Threads) # of the static libraries
include(${CMAKE_CURRENT_LIST_DIR}/quernelTargets.cmake)
