/* How hard to search. Included by search.inc.h. */

/* The scales to try: where the extreme weight of a sub-block may land, times an end of the book. */
typedef struct {
    int n_reach; /* grid points per variant: an end of the book and a codebook */
    float from, to;
    int n_keep; /* candidates kept per variant */
} search_grid;

typedef struct {
    search_grid grid;
    int n_refine; /* least-squares steps of the candidates, at least one */
    /* the shortlist of values of d, by the candidates' parabolas */
    int n_d;            /* values between d_from and d_to */
    float d_from, d_to; /* times (the largest of the sub-blocks' smallest good scales / the largest scale code) */
    int n_d_fine;       /* values around each of the best of these */
    int n_divisor;      /* values that make that scale a whole multiple */
    /* with codes assigned again */
    int n_exact;     /* values of d from the shortlist */
    int n_polish;    /* least-squares steps of d, or of a block's scale */
    int n_try;       /* variants per sub-block, most promising first */
    int n_neighbour; /* scale codes on each side of the best */
} search_plan;

#define EFFORTS 3
#define PAIRS 0 /* in place of the bits of a code that stands for two weights */

/* clang-format off */

/* By the bits of a code: the finer a codebook, the narrower the valleys of the error in the scale, and the less it pays
 * to clip the largest weights or to leave the outer codes unused. */
static const search_grid shared_grids[][EFFORTS] = {
    /*                  fast                  normal                    best */
    [PAIRS] = {{4, 0.60f, 1.25f, 1}, {8, 0.50f, 2.15f, 2}, {30, 0.40f, 2.5f, 8}},
    [2] = {{3, 0.62f, 1.65f, 1}, {8, 0.50f, 2.40f, 2}, {25, 0.40f, 2.5f, 8}},
    [3] = {{5, 0.60f, 1.30f, 1}, {9, 0.50f, 2.10f, 3}, {30, 0.40f, 2.5f, 8}},
    [4] = {{6, 0.78f, 1.30f, 2}, {13, 0.68f, 1.50f, 4}, {40, 0.50f, 2.0f, 8}},
    [5] = {{7, 0.76f, 1.15f, 2}, {15, 0.74f, 1.27f, 4}, {60, 0.50f, 2.0f, 8}},
    [6] = {{12, 0.80f, 1.02f, 2}, {16, 0.73f, 1.09f, 4}, {80, 0.60f, 1.3f, 8}},
};

/* The K types: one d for sixteen sub-blocks of 16. The KS types: one d for the sub-blocks of 32 of a whole row. */
static const search_plan superblock_plans[EFFORTS] = {
    /*                          refine  d  from    to  fine divisor  exact polish try neighbour */
    [IQ_EFFORT_FAST]   = {{0},      1,  8, 0.65f, 2.0f,   4,      2,     1,     0,  2,        0},
    [IQ_EFFORT_NORMAL] = {{0},      1, 20, 0.50f, 2.3f,   8,      2,     2,     2,  2,        1},
    [IQ_EFFORT_BEST]   = {{0},      2, 48, 0.50f, 2.3f,  24,      8,     6,     4,  4,        2},
};
static const search_plan row_plans[EFFORTS] = {
    [IQ_EFFORT_FAST]   = {{0},      1,  8, 0.65f, 2.3f,   8,      1,     1,     0,  1,        1},
    [IQ_EFFORT_NORMAL] = {{0},      1, 20, 0.50f, 2.3f,   8,      2,     1,     1,  2,        1},
    [IQ_EFFORT_BEST]   = {{0},      2, 48, 0.50f, 2.3f,  24,      8,     6,     4,  4,        2},
};

/* Blocks of 32 with a scale of their own. */
static const search_plan block_plans[EFFORTS] = {
    [IQ_EFFORT_FAST]   = {.grid = {10, 0.80f, 1.2f, 4}, .n_refine = 1, .n_polish = 1},
    [IQ_EFFORT_NORMAL] = {.grid = {32, 0.72f, 1.3f, 8}, .n_refine = 1, .n_polish = 2},
    [IQ_EFFORT_BEST]   = {.grid = {48, 0.60f, 1.5f, 8}, .n_refine = 2, .n_polish = 4},
};
/* clang-format on */

static int bits_of_code(const iq_book *book) {
    int bits = 2;
    while (1 << bits < book->n_code) bits++;
    return bits;
}

static search_plan shared_plan(const iq_scale_group *g) {
    search_plan plan = g->sub < IQ_SUB_MOST ? superblock_plans[g->effort] : row_plans[g->effort];
    plan.grid = shared_grids[g->book->kind == IQ_BOOK_PAIRS ? PAIRS : bits_of_code(g->book)][g->effort];
    return plan;
}

/* Where nothing but the scale is free, clipping the largest weights pays less the finer the codes are. */
static search_plan block_plan(const iq_scale_group *g) {
    const float fine[] = {0, 0, 0.625f, 0.75f, 1.0f, 1.5f, 2.0f, 3.0f, 3.0f}, f = fine[bits_of_code(g->book)];
    search_plan plan = block_plans[g->effort];
    plan.grid.n_reach = (int)((float)plan.grid.n_reach * f);
    plan.grid.from = 1.0f - (1.0f - plan.grid.from) / f;
    plan.grid.to = 1.0f + (plan.grid.to - 1.0f) / f;
    return plan;
}
