// One launch: its blocks one after another, the threads of a block as fibers that meet at barriers.
#pragma once

#include "cuda.hpp"

namespace host {

enum class Order { forward, reverse, shuffled };

// Run every block of grid (x, y, z) with block (x, y, z) threads. Ends the process where a barrier is not met by all
// threads of a block, as an illegal access ends a CUDA context.
void run(const char* name, const Module& module, Entry entry, const unsigned char* slots, uint3 grid, uint3 block,
         Order order);

// "kernel NAME block (x, y, z) thread (x, y, z)" on stderr: for whoever ends the process in the middle of a kernel.
void tell_where();

}  // namespace host
