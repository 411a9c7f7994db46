// Counts what a warp asks of memory; see counting.cpp.
#pragma once

#include <cstdio>

#include "cuda.hpp"

namespace host {

// Who the next accesses belong to: the thread's number in its block.
extern unsigned current_thread;

void begin_block(unsigned threads);
void end_block();

// One line per site and kind since the last call: site kind requests bytes sectors phases wavefronts max_ways.
void write_counts(FILE* out);

}  // namespace host
