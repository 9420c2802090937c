#define _DEFAULT_SOURCE 1 /* _SC_PHYS_PAGES, madvise */
#include "engine/memory.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "base/aligned.h"

#define LARGE_ITEM 65536 /* bytes: what the size of pages matters to */

/* In front of every item; its size keeps the item aligned. */
typedef struct {
    alignas(IQ_ALIGNMENT) void *older;
} item_header;

uint64_t iq_add_u64(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

uint64_t iq_mul_u64(uint64_t a, uint64_t b) { return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b; }

/* Adds one item to the total; returns its whole size, or 0 after an overflow. */
static uint64_t count_item(iq_memory *memory, uint64_t count, uint64_t size) {
    const uint64_t bytes = iq_mul_u64(count, size);
    if (bytes > PTRDIFF_MAX / 2 || memory->bytes > PTRDIFF_MAX / 2) {
        memory->bytes = UINT64_MAX;
        return 0;
    }
    const uint64_t whole = sizeof(item_header) + iq_round_up(bytes, alignof(item_header));
    memory->bytes += whole;
    return whole;
}

/* About all pages that some memory touches: neighbours with the same advice are one area to the system, and share the
 * huge pages between them. */
static void advise_pages(void *data, uint64_t bytes, bool small) {
#if defined(MADV_HUGEPAGE)
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)data / page * page;
    madvise((void *)first, iq_round_up((uintptr_t)data + bytes, page) - first,
            small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
#else
    (void)data, (void)bytes, (void)small;
#endif
}

void *iq_memory_take(iq_memory *memory, uint64_t count, uint64_t size) {
    const uint64_t whole = count_item(memory, count, size);
    if (memory->counting || memory->failed) return NULL;
    item_header *item = whole != 0 ? iq_aligned_alloc(whole) : NULL;
    if (!item) {
        memory->failed = true;
        return NULL;
    }
    if (whole >= LARGE_ITEM) advise_pages(item, whole, memory->small_pages);
    item->older = memory->newest;
    memory->newest = item;
    return item + 1;
}

void iq_wish_huge_pages(void *data, uint64_t bytes) { advise_pages(data, bytes, false); }

void *iq_memory_take_zeroed(iq_memory *memory, uint64_t count, uint64_t size) {
    void *item = iq_memory_take(memory, count, size);
    if (item) memset(item, 0, count * size);
    return item;
}

void iq_memory_free(iq_memory *memory) {
    while (memory->newest) {
        item_header *item = memory->newest;
        memory->newest = item->older;
        iq_aligned_free(item);
    }
}

#if defined(_WIN32)

uint64_t iq_physical_memory(void) {
    MEMORYSTATUSEX status = {.dwLength = sizeof status};
    return GlobalMemoryStatusEx(&status) ? status.ullTotalPhys : UINT64_MAX;
}

#else

uint64_t iq_physical_memory(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages <= 0 || page_bytes <= 0 ? UINT64_MAX : iq_mul_u64((uint64_t)pages, (uint64_t)page_bytes);
}

#endif
