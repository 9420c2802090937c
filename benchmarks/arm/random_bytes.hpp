// What the peers multiply in the count of instructions.
#pragma once

#include <cstdint>
#include <vector>

// Bytes without the bits that would make an fp16 or fp32 scale infinite; no value matters for the count.
static std::vector<uint8_t> random_bytes(size_t n) {
    std::vector<uint8_t> bytes(n);
    uint32_t state = 1;
    for (auto &byte : bytes) byte = uint8_t((state = state * 1664525u + 1013904223u) >> 24) & 0xb7;
    return bytes;
}
