// Requests of a warp, their 32-byte sectors in global memory and their bank conflicts in shared memory.
//
// The k-th time that the lanes of a warp come to one site makes one request. Global memory moves whole sectors of 32
// bytes. Shared memory has 32 banks of 4 bytes: lanes that want different words of one bank wait for each other (so
// many "ways"), lanes that want the same word do not. Accesses of 8 bytes are served by half-warps, of 16 bytes by
// quarter-warps (CUDA Programming Guide, "Shared Memory"; each such part is a phase, and the ways of all phases add up
// to the wavefronts).
#include "counting.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <vector>

namespace host {

bool counting = false;
unsigned current_thread = 0;

namespace {

constexpr unsigned warp_size = 32, sector_bytes = 32, banks = 32, word_bytes = 4;

struct Access {
    uint64_t request;  // site, then warp, then how often the lane has been there
    uint64_t address;
    unsigned bytes, lane;
};

struct Totals {
    uint64_t requests = 0, bytes = 0, sectors = 0, phases = 0, wavefronts = 0, max_ways = 0;
};

struct Site {
    Totals totals;
    std::vector<unsigned> visits;  // per thread of this block
};

std::map<std::pair<int, Kind>, unsigned> numbers;
std::vector<Site> sites;
std::vector<Access> accesses;
unsigned block_threads = 0;

unsigned number_of(Kind kind, int site) {
    const auto [place, is_new] = numbers.try_emplace({site, kind}, sites.size());
    if (is_new) sites.emplace_back();
    return place->second;
}

// How many different units of `size` bytes the accesses touch.
uint64_t distinct_units(const Access* begin, const Access* end, unsigned size) {
    static std::vector<uint64_t> units;
    units.clear();
    for (auto each = begin; each != end; ++each)
        for (auto unit = each->address / size; unit <= (each->address + each->bytes - 1) / size; ++unit)
            units.push_back(unit);
    std::sort(units.begin(), units.end());
    return std::unique(units.begin(), units.end()) - units.begin();
}

// The most different words that one bank must deliver.
uint64_t conflict_ways(const Access* begin, const Access* end) {
    static std::vector<uint64_t> words;
    words.clear();
    for (auto each = begin; each != end; ++each)
        for (auto word = each->address / word_bytes; word <= (each->address + each->bytes - 1) / word_bytes; ++word)
            words.push_back(word);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::array<uint64_t, banks> wanted{};
    for (const auto word : words) ++wanted[word % banks];
    return *std::max_element(wanted.begin(), wanted.end());
}

void count_request(Kind kind, Totals& totals, const Access* begin, const Access* end) {
    ++totals.requests;
    for (auto each = begin; each != end; ++each) totals.bytes += each->bytes;
    if (kind == global_read || kind == global_write) {
        totals.sectors += distinct_units(begin, end, sector_bytes);
        return;
    }
    const unsigned lanes = begin->bytes == 16 ? 8 : begin->bytes == 8 ? 16 : warp_size;
    while (begin != end) {
        auto phase_end = begin;
        while (phase_end != end && phase_end->lane / lanes == begin->lane / lanes) ++phase_end;
        const auto ways = conflict_ways(begin, phase_end);
        ++totals.phases;
        totals.wavefronts += ways;
        totals.max_ways = std::max(totals.max_ways, ways);
        begin = phase_end;
    }
}

}  // namespace

void begin_block(unsigned threads) {
    block_threads = threads;
    accesses.clear();
    for (auto& site : sites) site.visits.assign(threads, 0);
}

void record(Kind kind, const void* address, unsigned bytes, int line) {
    const unsigned number = number_of(kind, line);
    auto& visits = sites[number].visits;
    visits.resize(block_threads);
    const uint64_t warp = current_thread / warp_size, visit = visits[current_thread]++;
    accesses.push_back({static_cast<uint64_t>(number) << 48 | warp << 40 | visit, reinterpret_cast<uint64_t>(address),
                        bytes, current_thread % warp_size});
}

void end_block() {
    std::sort(accesses.begin(), accesses.end(), [](const Access& a, const Access& b) {
        return a.request != b.request ? a.request < b.request : a.lane < b.lane;
    });
    std::vector<Kind> kinds(sites.size());
    for (const auto& [key, number] : numbers) kinds[number] = key.second;
    const Access* const end = accesses.data() + accesses.size();
    for (const Access* begin = accesses.data(); begin != end;) {
        auto request_end = begin;
        while (request_end != end && request_end->request == begin->request) ++request_end;
        const auto number = begin->request >> 48;
        count_request(kinds[number], sites[number].totals, begin, request_end);
        begin = request_end;
    }
}

void write_counts(FILE* out) {
    for (const auto& [key, number] : numbers) {
        const auto& t = sites[number].totals;
        fprintf(out, "%d %d %llu %llu %llu %llu %llu %llu\n", key.first, static_cast<int>(key.second),
                static_cast<unsigned long long>(t.requests), static_cast<unsigned long long>(t.bytes),
                static_cast<unsigned long long>(t.sectors), static_cast<unsigned long long>(t.phases),
                static_cast<unsigned long long>(t.wavefronts), static_cast<unsigned long long>(t.max_ways));
    }
    numbers.clear();
    sites.clear();
}

}  // namespace host
