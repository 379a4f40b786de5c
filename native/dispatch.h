// The kernels in use: the best that this processor runs, or those that a test asked for.
#pragma once

#include "kernels.h"

namespace flashhead {

const Kernels* CurrentKernels();
// Null chooses the best. False where there are none of that name here.
bool UseKernels(const char* name);

}  // namespace flashhead
