/* Where the 16 slots of a superblock stand: in the stored activations, and in vectors with one lane per slot.
 *
 * A superblock is multiplied in four chunks of 64 codes, four slots each. Adding up the chunks' products within slots
 * leaves the sum of slot 4j + k (the k-th of chunk j) in lane 4k + j: that is the lane order of iq_q8_block's d and s
 * and of every vector of scales.
 *
 * Numbers below are sub-blocks of 16 in the order of the columns; in IQ_ORDER_PAIRS, 2b and 2b + 1 are the even and
 * the odd columns of the b-th 32-block. */
#ifndef IQ_KERNEL_SLOT_ORDER_H
#define IQ_KERNEL_SLOT_ORDER_H

#include "kernel/kernels.h"

#define IQ_SLOT_LANE(slot) (4 * ((slot) % 4) + (slot) / 4)
/* Lanes between the two slots of a 32-block. */
#define SLOTS_APART(order) ((order) == IQ_ORDER_NIBBLE16 || (order) == IQ_ORDER_PAIRS ? 1 : 4)

/* The sub-block of each lane; each 4 x 4 table transposed is the order of iq_slot_order. */
/* clang-format off */
#define IQ_LANES_NATURAL(f)  f(0) f(4) f(8) f(12) f(1) f(5) f(9) f(13) f(2) f(6) f(10) f(14) f(3) f(7) f(11) f(15)
#define IQ_LANES_HALVES(f)   f(0) f(2) f(4) f(6) f(1) f(3) f(5) f(7) f(8) f(10) f(12) f(14) f(9) f(11) f(13) f(15)
#define IQ_LANES_NIBBLE16(f) f(0) f(1) f(8) f(9) f(2) f(3) f(10) f(11) f(4) f(5) f(12) f(13) f(6) f(7) f(14) f(15)
#define IQ_LANES_NIBBLE32(f) f(0) f(2) f(8) f(10) f(1) f(3) f(9) f(11) f(4) f(6) f(12) f(14) f(5) f(7) f(13) f(15)
#define IQ_LANES_PAIRS(f)    f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
/* clang-format on */

#define IQ_LANE_TABLE(f)                                                                                               \
    {                                                                                                                  \
        {IQ_LANES_NATURAL(f)}, {IQ_LANES_HALVES(f)}, {IQ_LANES_NIBBLE16(f)}, {IQ_LANES_NIBBLE32(f)}, {                 \
            IQ_LANES_PAIRS(f)                                                                                          \
        }                                                                                                              \
    }
#define IQ_LANE_SELF(n) (n),
#define IQ_LANE_BLOCK(n) (n) / 2,
#define IQ_LANE_BIT(n) 1 << (n),
#define IQ_LANE_BLOCK_BIT(n) 1 << (n) / 2,

#if defined(__GNUC__)
#define IQ_TABLE __attribute__((unused)) static const
#else
#define IQ_TABLE static const
#endif

alignas(64) IQ_TABLE int32_t lane_sub_block[IQ_ORDERS][IQ_SLOTS] = IQ_LANE_TABLE(IQ_LANE_SELF);
alignas(64) IQ_TABLE int32_t lane_block[IQ_ORDERS][IQ_SLOTS] = IQ_LANE_TABLE(IQ_LANE_BLOCK);
alignas(64) IQ_TABLE int32_t lane_sub_block_bit[IQ_ORDERS][IQ_SLOTS] = IQ_LANE_TABLE(IQ_LANE_BIT);
alignas(64) IQ_TABLE int32_t lane_block_bit[IQ_ORDERS][IQ_SLOTS] = IQ_LANE_TABLE(IQ_LANE_BLOCK_BIT);
alignas(16) IQ_TABLE uint8_t lane_sub_block8[IQ_ORDERS][IQ_SLOTS] = IQ_LANE_TABLE(IQ_LANE_SELF);
alignas(16) IQ_TABLE uint8_t lane_block8[IQ_ORDERS][IQ_SLOTS] = IQ_LANE_TABLE(IQ_LANE_BLOCK);

/* The slot of each sub-block: the inverse of the orders of iq_slot_order. */
/* clang-format off */
IQ_TABLE uint8_t slot_of_sub_block[IQ_ORDERS][IQ_SLOTS] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, /* NATURAL */
    {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15}, /* HALVES */
    {0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15}, /* NIBBLE16 */
    {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15}, /* NIBBLE32 */
    {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15}, /* PAIRS */
};
/* clang-format on */

/* What the 16 values of a nibble stand for, in the two forms that instruction sets look up. */
typedef struct {
    alignas(64) float f32[16];
    alignas(16) int8_t i8[16];
} nibble_values;

/* clang-format off */
#define IQ_NIBBLE_VALUES(...) {{__VA_ARGS__}, {__VA_ARGS__}}
IQ_TABLE nibble_values values_0_to_15 = IQ_NIBBLE_VALUES(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
/* 16 * crumb - 32, whatever the upper two bits are */
IQ_TABLE nibble_values values_of_crumbs =
    IQ_NIBBLE_VALUES(-32, -16, 0, 16, -32, -16, 0, 16, -32, -16, 0, 16, -32, -16, 0, 16);
/* clang-format on */

/* 16 fields of two bits to 16 nibbles. */
IQ_INLINE uint64_t nibbles_of_crumbs(uint32_t crumbs) {
    uint64_t x = crumbs;
    x = (x | x << 16) & 0x0000ffff0000ffff;
    x = (x | x << 8) & 0x00ff00ff00ff00ff;
    x = (x | x << 4) & 0x0f0f0f0f0f0f0f0f;
    return (x | x << 2) & 0x3333333333333333;
}

#endif
