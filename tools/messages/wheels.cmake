# The wheels' generated Python targets name include folders of the machine that built them. CMake refuses a target
# whose include folder does not exist, so keep only those that do. Include this after all find_package.
function(drop_missing_include_directories target)
  get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  set(kept "")
  foreach(folder IN LISTS folders)
    if(folder MATCHES "^\\$<" OR IS_DIRECTORY "${folder}")
      list(APPEND kept "${folder}")
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
endfunction()

get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS targets)
  if(target MATCHES "__rosidl_generator_py$")
    drop_missing_include_directories(${target})
  endif()
endforeach()
